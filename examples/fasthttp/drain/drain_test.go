package drain

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// gate is a listener whose Accept waits until the drain begins.
type gate struct {
	*net.TCPListener
	open chan struct{}
	once sync.Once
}

func (g *gate) SetDeadline(t time.Time) error {
	g.once.Do(func() { close(g.open) })
	return g.TCPListener.SetDeadline(t)
}

func (g *gate) Accept() (net.Conn, error) {
	<-g.open
	return g.TCPListener.Accept()
}

// A connection that is in the accept queue when the drain begins may be
// hijacked. It then belongs to the program.
func TestUpgradeInTheDrain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	srv := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusSwitchingProtocols)
		ctx.Response.Header.Set("Connection", "Upgrade")
		ctx.Response.Header.Set("Upgrade", "test")
		ctx.Hijack(func(c net.Conn) { io.WriteString(c, "upgraded\n") })
	}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	g := &gate{TCPListener: ln.(*net.TCPListener), open: make(chan struct{})}
	go func() { done <- Serve(ctx, g, srv) }()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var response []string
	for in := bufio.NewScanner(c); in.Scan(); {
		response = append(response, in.Text())
	}
	if text := strings.Join(response, "\n"); !strings.HasSuffix(text, "\nupgraded") {
		t.Errorf("response %q", text)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
