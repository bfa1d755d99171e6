//! Origins that do as a test says: a thread a connection, on plain sockets.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::message::{Client, Message, Wire, ok};

/// A connection that the proxy made.
pub(crate) struct Conn {
    pub wire: Client,
    /// Counts from 0 in the order of their coming.
    pub index: usize,
    state: Arc<State>,
}

impl Conn {
    /// The next request, noted for [`Origin::requests`].
    pub(crate) fn request(&mut self) -> Option<Message> {
        let message = self.wire.request().ok()??;
        self.state.requests.lock().expect("no panic").push(message.clone());
        Some(message)
    }

    /// The next head, noted likewise.
    pub(crate) fn head(&mut self) -> Option<Message> {
        let message = self.wire.head().ok()??;
        self.state.requests.lock().expect("no panic").push(message.clone());
        Some(message)
    }

    /// Waits until the proxy ends the connection, or the origin is dropped.
    pub(crate) fn until_closed(&mut self) {
        let _ = self.wire.rest();
    }

    /// Closes with a reset: with unread bytes or without.
    pub(crate) fn reset(self) {
        // The list holds a clone, with which the connection would stay open.
        let mut streams = self.state.streams.lock().expect("no panic");
        let same = |other: &TcpStream| other.peer_addr().ok() == self.wire.stream().peer_addr().ok();
        streams.retain(|stream| !same(stream));
        self.wire.reset();
    }

    /// Tells the test something, see [`Origin::notes`].
    pub(crate) fn note(&self, note: &str) {
        self.state.notes.lock().expect("no panic").push(note.to_owned());
    }
}

/// The end of a script: the clone in the list would keep the connection open.
struct EndOf {
    state: Arc<State>,
    peer: Option<SocketAddr>,
}

impl Drop for EndOf {
    fn drop(&mut self) {
        let Ok(mut streams) = self.state.streams.lock() else { return };
        if let Some(at) = streams.iter().position(|stream| stream.peer_addr().ok() == self.peer) {
            let _ = streams.swap_remove(at).shutdown(Shutdown::Both);
        }
    }
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    requests: Mutex<Vec<Message>>,
    notes: Mutex<Vec<String>>,
    streams: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// A listening origin; dropped, it closes its connections and refuses new ones.
pub(crate) struct Origin {
    pub addr: SocketAddr,
    state: Arc<State>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Origin {
    /// Each connection is given to `script`.
    pub(crate) fn script(script: impl Fn(Conn) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let (script, shared) = (Arc::new(script), state.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let index = shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.streams.lock().expect("no panic").push(stream.try_clone().expect("a descriptor"));
                let conn = Conn { wire: Wire::over(stream), index, state: shared.clone() };
                let script = script.clone();
                thread::spawn(move || {
                    let peer = conn.wire.stream().peer_addr().ok();
                    let state = conn.state.clone();
                    // Runs in a panic, too: the proxy must not wait for a script that failed.
                    let _end = EndOf { state, peer };
                    script(conn);
                });
            }
        });
        Origin { addr, state, thread: Some(thread) }
    }

    /// Answers each request with what `answer` makes of it, and keeps the connection.
    pub(crate) fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        Origin::script(move |mut conn| {
            while let Some(request) = conn.request() {
                let response = answer(&request);
                conn.wire.send(&response);
            }
        })
    }

    /// Answers `METHOD target BODY`.
    pub(crate) fn echo() -> Origin {
        Origin::answering(|request| {
            let text = ok(&format!("{} {} {}", request.method(), request.target(), request.text()));
            match request.method() {
                "HEAD" => text.split_inclusive("\r\n\r\n").next().unwrap_or_default().as_bytes().to_vec(),
                _ => text.into_bytes(),
            }
        })
    }

    /// An address that refuses.
    pub(crate) fn refusing() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// What [`Conn::note`] was given.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.state.notes.lock().expect("no panic").clone()
    }

    pub(crate) fn requests(&self) -> Vec<Message> {
        self.state.requests.lock().expect("no panic").clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that the listener closes.
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.state.streams.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
