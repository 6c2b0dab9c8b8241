//! The internal port: the server API.
