//! Credentials: from the Secrets that resources name to what is handed on.
