package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func runServer(arguments []string) error {
	flags, timeout := newFlags("server")
	listen := flags.String("listen", "127.0.0.1:0", "the address to listen on")
	peer := flags.String("peer", "", "the SPIFFE ID that may connect (required)")
	period := flags.Duration("for", 0, "stop after this long; 0 serves until SIGTERM or SIGINT")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	id, err := spiffeid.FromString(*peer)
	if err != nil {
		return fmt.Errorf("-peer: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if *period > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *period)
		defer cancel()
	}
	source, err := newX509Source(*timeout)
	if err != nil {
		return err
	}
	defer source.Close()
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(id))
	listener, err := tls.Listen("tcp", *listen, config)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	emit("listening", fields{"addr": listener.Addr().String()})
	for {
		connection, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go serve(ctx, connection.(*tls.Conn), *timeout)
	}
}

// serve echoes one connection. A peer that fails the handshake is reported and
// does not stop the server.
func serve(ctx context.Context, connection *tls.Conn, timeout time.Duration) {
	defer connection.Close()
	handshake, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := connection.HandshakeContext(handshake); err != nil {
		emitError(fmt.Errorf("handshake: %w", err))
		return
	}
	id, serial, err := peerOf(connection)
	if err != nil {
		emitError(err)
		return
	}
	emit("peer", fields{"spiffe_id": id, "serial": serial})
	if _, err := io.Copy(connection, connection); err != nil && !errors.Is(err, net.ErrClosed) {
		emitError(fmt.Errorf("echo: %w", err))
	}
}

func runDial(arguments []string) error {
	flags, timeout := newFlags("dial")
	address := flags.String("addr", "", "the server's address (required)")
	peer := flags.String("peer", "", "the SPIFFE ID that the server must have (required)")
	times := flags.Int("times", 1, "how many connections to make")
	every := flags.Duration("every", time.Second, "the pause between two connections")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if *address == "" {
		return errors.New("-addr is required")
	}
	id, err := spiffeid.FromString(*peer)
	if err != nil {
		return fmt.Errorf("-peer: %w", err)
	}
	source, err := newX509Source(*timeout)
	if err != nil {
		return err
	}
	defer source.Close()
	dialer := &tls.Dialer{Config: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id))}
	for n := 1; n <= *times; n++ {
		if n > 1 {
			time.Sleep(*every)
		}
		serial, err := dial(dialer, *address, fmt.Sprintf("line %d of process %d\n", n, os.Getpid()), *timeout)
		if err != nil {
			return fmt.Errorf("connection %d: %w", n, err)
		}
		emit("dialled", fields{"n": n, "peer_serial": serial})
	}
	return nil
}

// dial makes one connection, has one line echoed and returns the peer's serial.
// In TLS 1.3 only the read tells that the server accepted our certificate.
func dial(dialer *tls.Dialer, address, line string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	connection := raw.(*tls.Conn)
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(connection, line); err != nil {
		return "", err
	}
	echo, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return "", err
	}
	if echo != line {
		return "", fmt.Errorf("sent %q, got %q", line, echo)
	}
	_, serial, err := peerOf(connection)
	return serial, err
}

func peerOf(connection *tls.Conn) (id, serial string, err error) {
	leaf := connection.ConnectionState().PeerCertificates[0]
	peer, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return "", "", err
	}
	return peer.String(), serialOf(leaf.SerialNumber), nil
}
