//! The limits of a connection.

use std::time::Duration;

use super::FrameBudgets;

/// What a connection may hold, and what its peer may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Streams that are open at once: that a server lets a client open, or that a client opens if the server allows as
    /// many. Default 100; 1 to 65,536.
    pub max_streams: u32,
    /// Bytes of a field section, each field counted with 32 more; beyond it 431, beyond four times as much the connection
    /// ends. Default 32 KiB. RFC 9113 6.5.2.
    pub header_list_bytes: u32,
    /// Bytes of the table that header blocks are decompressed with. Default 4 KiB.
    pub header_table_bytes: u32,
    /// Bytes of one body that are received and not released. Default 256 KiB; at most 2^31-1, as all windows.
    pub stream_window_bytes: u32,
    /// Bytes of all bodies that are received and not released. Default 1 MiB.
    pub connection_window_bytes: u32,
    /// Payload bytes of a frame. Default 16 KiB; 16 KiB to 16 MiB.
    pub max_frame_bytes: u32,
    /// Bytes of a body that wait to be sent, and one segment more. Default 64 KiB.
    pub send_buffer_bytes: u32,
    /// Bytes of frames that wait for room in the driver's queue. Default 64 KiB; at least 16 KiB.
    pub output_bytes: usize,
    /// Bytes of overhead (256 less what it holds, for each small frame) that DATA which nobody has taken may have. Default 512
    /// KiB: about 2,000 tiny messages of a stream that is not read.
    pub data_overhead_bytes: usize,
    /// Streams that we reset and remember for a while, so that frames which were under way are no fault: a server for 30 s, a
    /// client for 5. Default 50 in the server's role, 1,000 in the client's, which passes on what its own clients cancel.
    pub max_reset_streams: Option<usize>,
    /// Informational responses before the final one; beyond it the stream is reset. Default 16.
    pub informational_count: u16,
    /// What a peer may send of frames that cost it nothing.
    pub budgets: FrameBudgets,
    /// Default none.
    pub keep_alive: Option<KeepAlive>,
    /// Whether a client may ask for the extended CONNECT (RFC 8441), for WebSocket. Default no.
    pub extended_connect: bool,
}

/// How a connection that is silent is found out to be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// After how long without a byte from the peer it is sent a PING.
    pub interval: Duration,
    /// How long after it may be silent.
    pub timeout: Duration,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            max_streams: 100,
            header_list_bytes: 32 * 1024,
            header_table_bytes: 4096,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1 << 20,
            max_frame_bytes: 16 * 1024,
            send_buffer_bytes: 64 * 1024,
            output_bytes: 64 * 1024,
            data_overhead_bytes: 512 * 1024,
            max_reset_streams: None,
            informational_count: 16,
            budgets: FrameBudgets::default(),
            keep_alive: None,
            extended_connect: false,
        }
    }
}

impl Spec {
    /// The limits with those moved that the protocol does not allow.
    pub(super) fn clamped(self) -> Self {
        Spec {
            max_streams: self.max_streams.clamp(1, 1 << 16),
            stream_window_bytes: self.stream_window_bytes.min(MAX_WINDOW),
            // The default of the protocol cannot be lowered before the peer has used it.
            connection_window_bytes: self.connection_window_bytes.clamp(65_535, MAX_WINDOW),
            max_frame_bytes: self.max_frame_bytes.clamp(1 << 14, (1 << 24) - 1),
            output_bytes: self.output_bytes.max(16 * 1024),
            ..self
        }
    }

    /// Places for streams: twice as many as are open, for those that are done but whose bytes nobody has released.
    pub(super) fn max_places(&self) -> usize {
        self.max_streams as usize * 2
    }

    pub(super) fn server_builder(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.max_streams)
            .max_header_list_size(self.header_list_bytes)
            .header_table_size(self.header_table_bytes)
            .initial_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .max_frame_size(self.max_frame_bytes)
            .max_send_buffer_size(self.send_buffer_bytes as usize)
            .data_frame_budget(self.data_overhead_bytes)
            .max_concurrent_reset_streams(self.max_reset_streams.unwrap_or(50))
            .max_pending_accept_reset_streams(self.budgets.reset.burst as usize)
            .max_local_error_reset_streams(Some(LIFETIME_RESETS));
        if self.extended_connect {
            builder.enable_connect_protocol();
        }
        builder
    }

    pub(super) fn client_builder(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_concurrent_streams(0)
            // RFC 9113 6.5.2 recommends that peers allow 100; what this one allows is known with its SETTINGS.
            .initial_max_send_streams(self.max_streams.min(100) as usize)
            .max_header_list_size(self.header_list_bytes)
            .header_table_size(self.header_table_bytes)
            .initial_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .max_frame_size(self.max_frame_bytes)
            .max_send_buffer_size(self.send_buffer_bytes as usize)
            .data_frame_budget(self.data_overhead_bytes)
            .max_concurrent_reset_streams(self.max_reset_streams.unwrap_or(1000))
            .reset_stream_duration(CLIENT_RESET_MEMORY)
            .max_pending_accept_reset_streams(self.budgets.reset.burst as usize)
            .max_local_error_reset_streams(Some(LIFETIME_RESETS));
        builder
    }
}

/// For what is under way when a client resets.
const CLIENT_RESET_MEMORY: Duration = Duration::from_secs(5);

const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Streams with faults in the life of a connection, which h2 counts without forgetting any; how many in what time is
/// [`FrameBudgets::provoked_reset`].
const LIFETIME_RESETS: usize = 100_000;
