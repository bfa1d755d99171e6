//! What dialers, listeners and packet sockets are accepted by. A test has the number of its case, and each part of a case
//! that is shown elsewhere has its test where it can be shown: what a spec alone decides is in [`spec`].
//!
//! Cases of TLS, DTLS, QUIC and HTTP transports come with them: 65, 72 to 86, and of 50, 51, 57, 60 and 87 what speaks of
//! them. `d` stands before the number of a defect that the design's first implementation had.

mod dial;
mod listen;
mod namespace;
mod packet;
mod spec;
