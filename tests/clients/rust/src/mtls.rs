//! Mutual TLS with `spiffe-rustls`: a server that echoes, and a client that has one line echoed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use spiffe::cert::spiffe_id_from_der;
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::flags::Flags;
use crate::x509::{new_source, serial_of};
use crate::{Outcome, emit, emit_error};

pub async fn server(flags: &Flags) -> Outcome {
    let limit = flags.timeout()?;
    let peer = flags.required("peer")?;
    let source = new_source(limit).await?;
    let config = mtls_server(source).authorize(authorizer::exact([peer])?).build()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(flags.text("listen").unwrap_or("127.0.0.1:0")).await?;
    emit("listening", json!({"addr": listener.local_addr()?.to_string()}));

    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (connection, _) = accepted?;
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(&acceptor, connection, limit).await {
                        emit_error(error.as_ref());
                    }
                });
            }
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
        }
    }
}

/// Echoes one connection. A peer that fails the handshake is reported and does not stop the server.
async fn serve(acceptor: &TlsAcceptor, connection: TcpStream, limit: Duration) -> Outcome {
    connection.set_nodelay(true)?;
    let connection = timeout(limit, acceptor.accept(connection)).await?.map_err(|error| format!("handshake: {error}"))?;
    let (id, serial) = peer_of(connection.get_ref().1.peer_certificates())?;
    emit("peer", json!({"spiffe_id": id, "serial": serial}));
    let (mut read, mut write) = split(connection);
    copy(&mut read, &mut write).await?;
    write.shutdown().await?;
    Ok(())
}

pub async fn dial(flags: &Flags) -> Outcome {
    let limit = flags.timeout()?;
    let address = flags.required("addr")?;
    let peer = flags.required("peer")?;
    let every = flags.duration("every", Duration::from_secs(1))?;
    let source = new_source(limit).await?;
    let config = mtls_client(source).authorize(authorizer::exact([peer])?).build()?;
    let connector = TlsConnector::from(Arc::new(config));
    for n in 1..=flags.number("times", 1)? {
        if n > 1 {
            sleep(every).await;
        }
        let line = format!("line {n} of process {}\n", std::process::id());
        let serial = timeout(limit, dial_once(&connector, address, &line))
            .await?
            .map_err(|error| format!("connection {n}: {error}"))?;
        emit("dialled", json!({"n": n, "peer_serial": serial}));
    }
    Ok(())
}

/// Makes one connection, has one line echoed and returns the peer's serial. In TLS 1.3 only the read tells that the
/// server accepted our certificate.
async fn dial_once(connector: &TlsConnector, address: &str, line: &str) -> Outcome<String> {
    let connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    // rustls wants a name; the crate identifies the server by its SPIFFE ID instead.
    let mut connection = connector.connect(ServerName::try_from("peer.invalid")?, connection).await?;
    let (_, serial) = peer_of(connection.get_ref().1.peer_certificates())?;
    connection.write_all(line.as_bytes()).await?;
    let mut connection = BufReader::new(connection);
    let mut echo = String::new();
    connection.read_line(&mut echo).await?;
    if echo != line {
        return Err(format!("sent {line:?}, got {echo:?}").into());
    }
    connection.shutdown().await?;
    Ok(serial)
}

fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> Outcome<(String, String)> {
    let leaf = chain.and_then(<[_]>::first).ok_or("the peer showed no certificate")?;
    Ok((spiffe_id_from_der(leaf)?.to_string(), serial_of(leaf)?))
}
