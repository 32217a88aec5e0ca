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

// late is a listener that accepts nothing before the drain has begun.
type late struct {
	*net.TCPListener
	once sync.Once
	c    chan struct{}
}

func (l *late) SetDeadline(t time.Time) error {
	l.once.Do(func() { close(l.c) })
	return l.TCPListener.SetDeadline(t)
}

func (l *late) Accept() (net.Conn, error) {
	<-l.c
	return l.TCPListener.Accept()
}

// A connection that waits in the queue when the drain begins, and is hijacked, is the program's.
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
	go func() { done <- Serve(ctx, &late{TCPListener: ln.(*net.TCPListener), c: make(chan struct{})}, srv) }()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var answer []string
	for in := bufio.NewScanner(c); in.Scan(); {
		answer = append(answer, in.Text())
	}
	if text := strings.Join(answer, "\n"); !strings.HasSuffix(text, "\nupgraded") {
		t.Errorf("the answer was %q", text)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
