//! The kernel side of ringport.
