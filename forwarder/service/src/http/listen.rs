//! Where a server listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::info;

/// Connections that wait to be accepted; the system may have a lower bound.
const BACKLOG: i32 = 1_024;

/// Listens there; on `::` for every address of the machine.
pub(super) async fn listen(wanted: SocketAddr) -> io::Result<TcpListener> {
    if wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        any(wanted.port(), dual_stack).await
    } else {
        TcpListener::bind(wanted).await
    }
}

/// Listens on every address: by `dual_stack` where there is IPv6, otherwise on those of IPv4.
pub(super) async fn any(port: u16, dual_stack: impl Fn(u16) -> io::Result<TcpListener>) -> io::Result<TcpListener> {
    match dual_stack(port) {
        // A port that another process has is not free by halves.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            info!(%error, "failed to listen on IPv6; listening on IPv4 only");
            Ok(listener)
        }
        done => done,
    }
}

/// One socket for both families. The system's default (`net.ipv6.bindv6only`) may be another, so it is asked for.
fn dual_stack(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // As tokio and the standard library do: a port is free again as soon as its last listener has ended.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
