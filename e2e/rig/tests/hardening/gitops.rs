//! In the hands of tools that apply what a repository says and wait until it is healthy.

mod argo_cd;
mod examples;
mod kstatus;

pub(crate) use self::argo_cd::gitops;
