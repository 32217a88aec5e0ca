//go:build unix

package preforkhttp

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// certificate returns a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsConfig returns a configuration with a certificate and these protocols.
func tlsConfig(t *testing.T, protocols ...string) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: protocols}
}

// proto answers with the protocol of the request.
var proto = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, r.Proto)
})

// transport returns a transport that accepts any certificate, and a function that
// counts its connections.
func transport(t *testing.T, protocols *http.Protocols) (tr *http.Transport, dialed func() int) {
	var mu sync.Mutex
	n := 0
	tr = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Protocols:       protocols,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			n++
			mu.Unlock()
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func protocols(set func(*http.Protocols)) *http.Protocols {
	p := new(http.Protocols)
	set(p)
	return p
}

// get makes a request and fails the test unless the response names the protocol
// want. RoundTrip repeats a request only if that is safe: over HTTP/2, if the
// GOAWAY of the server excludes it.
func get(t *testing.T, tr *http.Transport, url, want string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Error(err)
		return
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
		t.Errorf("%q, %v; want %q", body, err, want)
	}
}

// A flavour is a way to negotiate HTTP/2.
type flavour struct {
	name, scheme string
	listener     func(net.Listener) net.Listener
	server       func() *http.Server
	client       *http.Protocols
}

func flavours(t *testing.T) []flavour {
	config := tlsConfig(t, "h2", "http/1.1")
	overTLS := func(ln net.Listener) net.Listener { return tls.NewListener(ln, config) }
	h2 := protocols(func(p *http.Protocols) { p.SetHTTP2(true) })
	return []flavour{
		{"TLS", "https", overTLS, func() *http.Server { return &http.Server{} }, h2},
		{"TLS, the config in the server too", "https", overTLS, func() *http.Server {
			return &http.Server{TLSConfig: config.Clone()}
		}, h2},
		{"unencrypted", "http", func(ln net.Listener) net.Listener { return ln }, func() *http.Server {
			return &http.Server{Protocols: protocols(func(p *http.Protocols) {
				p.SetHTTP1(true)
				p.SetUnencryptedHTTP2(true)
			})}
		}, protocols(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })},
	}
}

// net/http turns "Connection: close" into GOAWAY: the next request uses another
// connection, and the first is closed after its streams.
func TestHTTP2GoAway(t *testing.T) {
	for _, f := range flavours(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // net/http waits a second after GOAWAY for every client
			begun, finish := make(chan bool), make(chan bool)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					begun <- true
					<-finish
				}
				fmt.Fprint(w, r.Proto)
			})
			sock := bind(t, "tcp")
			srv := f.server()
			srv.Handler = handler
			s := start(t, f.listener(sock.listener(t)), 0, srv)
			tr, dialed := transport(t, f.client)
			url := f.scheme + "://" + s.addr.String()

			get(t, tr, url, "HTTP/2.0")
			slow := make(chan bool)
			go func() { get(t, tr, url+"/slow", "HTTP/2.0"); close(slow) }()
			<-begun
			s.cancel()
			s.running()
			get(t, tr, url, "HTTP/2.0")
			if n := dialed(); n != 1 {
				t.Errorf("%d connections before GOAWAY, want 1", n)
			}
			srv = f.server()
			srv.Handler = handler
			next := start(t, f.listener(sock.listener(t)), time.Millisecond, srv)
			for end := time.Now().Add(long); dialed() == 1 && time.Now().Before(end); {
				get(t, tr, url, "HTTP/2.0") // GOAWAY is on its way
			}
			s.running()
			close(finish)
			<-slow
			s.drained()
			next.cancel()
			next.drained()
		})
	}
}

// At the limit an idle connection receives GOAWAY, which tells the client which
// requests the server has handled.
func TestHTTP2Idle(t *testing.T) {
	for _, f := range flavours(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			srv := f.server()
			srv.Handler = proto
			s := start(t, f.listener(bind(t, "tcp").listener(t)), time.Millisecond, srv)
			nc := s.dial().nc
			if f.scheme == "https" {
				nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			}
			const emptySettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
			io.WriteString(nc, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+emptySettings)
			for frame := (frame{}); frame != frameSettingsAck; {
				frame = nextFrame(t, nc)
			}
			s.cancel()
			for frame := (frame{}); frame != frameGoAway; {
				frame = nextFrame(t, nc)
			}
			nc.Close()
			s.drained()
		})
	}
}

// A frame is the type and the flags of an HTTP/2 frame.
type frame [2]byte

var (
	frameSettingsAck = frame{4, 1}
	frameGoAway      = frame{7, 0}
)

// nextFrame reads a frame. The end of the connection fails the test.
func nextFrame(t *testing.T, r io.Reader) frame {
	t.Helper()
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal(err)
	}
	length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
	if _, err := io.CopyN(io.Discard, r, length); err != nil {
		t.Fatal(err)
	}
	return frame{head[3], head[4]}
}

// Thousands of streams run while workers are replaced.
func TestHTTP2Reload(t *testing.T) {
	f := flavours(t)[0]
	sock := bind(t, "tcp")
	begin := func() *server {
		return start(t, f.listener(sock.listener(t)), 5*time.Second, &http.Server{Handler: proto})
	}
	s := begin()
	tr, _ := transport(t, f.client)
	url := f.scheme + "://" + s.addr.String()
	var wg sync.WaitGroup
	stop := make(chan bool)
	var total atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					get(t, tr, url, "HTTP/2.0")
					total.Add(1)
				}
			}
		})
	}
	for range 20 {
		for seen := total.Load(); total.Load() < seen+50 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		next := begin()
		s.cancel()
		s.drained()
		s = next
	}
	close(stop)
	wg.Wait()
	t.Log("requests:", total.Load())
	s.cancel()
	tr.CloseIdleConnections()
	s.drained()
}

// The limit also closes TLS connections.
func TestTLSHTTP1(t *testing.T) {
	ln := tls.NewListener(bind(t, "tcp").listener(t), tlsConfig(t))
	s := start(t, ln, 100*time.Millisecond, &http.Server{Handler: proto})
	tr, _ := transport(t, protocols(func(p *http.Protocols) { p.SetHTTP1(true) }))
	get(t, tr, "https://"+s.addr.String(), "HTTP/1.1")
	s.cancel()
	s.drained()
}

// ServeTLS drains the accept queue, as Serve does.
func TestTLSQueuedConnectionsAreServed(t *testing.T) {
	g := &gate{TCPListener: bind(t, "tcp").listener(t).(*net.TCPListener), open: make(chan bool)}
	srv := &http.Server{Handler: hello, TLSConfig: tlsConfig(t)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serveWithLimits(ctx, nil, limits{idle: time.Minute}, nil, g, srv, func(ln net.Listener) error {
			return srv.ServeTLS(ln, "", "")
		})
	}()
	nc, err := net.Dial("tcp", g.Addr().String()) // the connection is in the queue now
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	cancel()
	nc.SetDeadline(time.Now().Add(long))
	conn := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("response %v, %v", resp, err)
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
