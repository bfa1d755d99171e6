//! What peers see.
