//! Starts cores with everything that has a default.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringport_platform::buf::{Pool, PoolSpec};
use ringport_platform::core::{Core, CoreSpec};
use ringport_platform::driver::{Driver, DriverChoice, Mechanism, Mechanisms, open};
use ringport_platform::launch::{CoreContext, LaunchSpec, Launched, launch};
use ringport_platform::stats::CoreStats;

use super::Native;

/// Runs the future that `main` makes on a core of this thread, with [`NativeSpec::from_env`], and returns its value.
///
/// See [`NativeSpec::block_on`].
///
/// # Errors
/// No driver is to be had, or the environment asks for something that does not exist.
pub fn block_on<F, Fut>(main: F) -> io::Result<Fut::Output>
where
    F: FnOnce(Native) -> Fut,
    Fut: Future,
{
    NativeSpec::from_env()?.block_on(main)
}

/// What a core is started with. Every field has a default.
///
/// ```
/// use ringport::runtime::native::{DriverChoice, DriverKind, NativeSpec};
///
/// let spec = NativeSpec { driver: DriverChoice::Only(DriverKind::Epoll), ..NativeSpec::default() };
/// let kind = spec.block_on(|runtime| async move { runtime.core().driver_kind() })?;
/// assert_eq!(kind, DriverKind::Epoll);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeSpec {
    /// Which driver. Default: io_uring where it works, else epoll.
    pub driver: DriverChoice,
    /// Mechanisms to do without. Default none.
    pub disable: Mechanisms,
    /// The receive memory of each core. Default 1 to 32 MiB.
    pub pool: PoolSpec,
    /// The habits of each core. Default: a closed stream has 10 s to send what waits.
    pub core: CoreSpec,
}

impl NativeSpec {
    /// The defaults, with what `RINGPORT_DRIVER` and `RINGPORT_DISABLE` say in the place of `driver` and `disable`.
    ///
    /// # Errors
    /// `InvalidInput`: a variable names a driver or a mechanism that does not exist.
    pub fn from_env() -> io::Result<Self> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> io::Result<Self> {
        let invalid = |name: &str, error: String| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {error}"))
        };
        let mut spec = NativeSpec::default();
        if let Some(text) = var(DRIVER) {
            spec.driver = text.parse().map_err(|error| invalid(DRIVER, error))?;
        }
        if let Some(text) = var(DISABLE) {
            spec.disable = text.parse().map_err(|error: ringport_platform::driver::UnknownMechanism| {
                invalid(DISABLE, error.to_string())
            })?;
        }
        Ok(spec)
    }

    /// Runs the future that `main` makes on a core of this thread, and returns its value.
    ///
    /// Once it is done the core ends: other tasks are dropped, closed streams have until [`CoreSpec::linger`] to send
    /// what waits, and what is left is reset.
    ///
    /// # Errors
    /// The driver is not to be had, or has become unusable.
    ///
    /// # Panics
    /// If the future panics (a panic in a spawned task ends that task alone), or this thread runs a core already.
    pub fn block_on<F, Fut>(&self, main: F) -> io::Result<Fut::Output>
    where
        F: FnOnce(Native) -> Fut,
        Fut: Future,
    {
        let (pool, stats) = (Pool::new(self.pool), Arc::new(CoreStats::default()));
        let driver = open_driver(self.driver, self.disable, &pool, &stats)?;
        let core = Ending(Core::new(driver, pool, stats, self.core()));
        let value = core.0.block_on(main(Native::new(core.0.clone())))?;
        core.0.shutdown(self.core.linger)?;
        Ok(value)
    }

    /// Starts `cores` threads with a core each; every one runs the future that `main` makes on it. Returns when all
    /// have started.
    ///
    /// To share a port, each core takes a part of a `net::ListenPart::open`, or, on Linux, listens at the same address with
    /// `reuse_port`. [`Launched::drain`] ends them.
    ///
    /// # Errors
    /// A thread cannot be made, or the driver is not to be had.
    ///
    /// # Panics
    /// If `cores` is 0.
    pub fn launch<M, Fut>(&self, cores: usize, main: M) -> io::Result<Launched>
    where
        M: Fn(Native, CoreContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<()>> + 'static,
    {
        let (driver, disable) = (self.driver, self.disable);
        let spec = LaunchSpec {
            cores,
            pin: false,
            pool: self.pool,
            core: self.core(),
            open: Arc::new(move |pool, stats| open_driver(driver, disable, &pool, &stats)),
        };
        launch(spec, move |context| main(Native::new(context.core.clone()), context))
    }

    fn core(&self) -> CoreSpec {
        let off = self.disable.contains(Mechanism::Splice);
        CoreSpec { max_pipes: if off { 0 } else { self.core.max_pipes }, ..self.core }
    }
}

/// A core that ends on every way out. Its tasks hold it, and it holds its tasks: without an end neither goes.
struct Ending(Core);

impl Drop for Ending {
    fn drop(&mut self) {
        // After an end in order nothing is left; after a panic or a failed driver nobody waits for what is.
        let _ = self.0.shutdown(Duration::ZERO);
    }
}

fn open_driver(
    choice: DriverChoice,
    disable: Mechanisms,
    pool: &Pool,
    stats: &Arc<CoreStats>,
) -> io::Result<Box<dyn Driver>> {
    let opened = open(choice, disable, pool, stats).map_err(|error| io::Error::other(error.to_string()))?;
    tracing::debug!("driver: {}", opened.why);
    Ok(opened.driver)
}

const DRIVER: &str = "RINGPORT_DRIVER";
const DISABLE: &str = "RINGPORT_DISABLE";

#[cfg(test)]
mod tests {
    use super::{DISABLE, DRIVER, NativeSpec};
    use ringport_platform::driver::{DriverChoice, DriverKind, Mechanisms};

    #[test]
    fn the_environment_chooses_and_its_faults_are_named() {
        let with = |name: &'static str, value: &'static str| {
            NativeSpec::from_vars(move |asked| (asked == name).then(|| value.to_owned()))
        };
        let epoll = with(DRIVER, "epoll").expect("a driver's name");
        assert_eq!(epoll.driver, DriverChoice::Only(DriverKind::Epoll));
        assert_ne!(with(DISABLE, "inc,silent").expect("mechanisms").disable, Mechanisms::NONE);
        assert_eq!(NativeSpec::from_vars(|_| None).expect("nothing asked").driver, DriverChoice::Auto);
        for name in [DRIVER, DISABLE] {
            let error = with(name, "kqueue").expect_err("no such thing");
            assert!(error.to_string().contains(name) && error.to_string().contains("kqueue"), "{error}");
        }
    }
}
