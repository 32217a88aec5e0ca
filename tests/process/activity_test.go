//go:build unix

package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforkhttp"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("twoServers", twoServers) }

// twoServers is a worker with two servers. It is paused when it reads a line
// from standard input.
func twoServers() {
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, Observe: func(ev prefork.Event) {
		switch ev.(type) {
		case prefork.PauseEvent:
			testprog.Print("to pause")
		case prefork.PausedEvent:
			testprog.Print("paused")
		}
	}})
	var listeners []net.Listener
	for range 2 {
		ln, err := pm.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		listeners = append(listeners, ln)
	}
	if !prefork.IsWorker() {
		testprog.Print("at %s", listeners[1].Addr())
		go func() {
			bufio.NewReader(os.Stdin).ReadString('\n')
			pm.Pause()
		}()
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		ended := make(chan error)
		for _, ln := range listeners {
			go func() {
				ended <- preforkhttp.Serve(w, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					testprog.Print("begins")
					io.Copy(io.Discard, r.Body)
					testprog.Print("finished")
				})})
			}()
		}
		return errors.Join(<-ended, <-ended)
	})
}

// A worker with two servers has paused when both have. An idle server does not
// count for the other.
func TestTwoServersPause(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := preforktest.New(t, "twoServers")
	p.Cmd.Stdin = r
	p.Start()
	address := p.Expect(`^at (\S+)$`)[1]
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n")
	p.Expect(`^begins$`)
	io.WriteString(w, "\n")
	p.Expect(`^to pause$`)
	time.Sleep(200 * time.Millisecond) // it must not confirm the pause
	io.WriteString(c, "1")
	got := p.ExpectN(2, `^(finished|paused)$`)
	if got[0][1] != "finished" || got[1][1] != "paused" {
		t.Errorf("it printed %s, %s", got[0][1], got[1][1])
	}
	c.Close() // otherwise it is drained for five seconds
	p.Signal(term)
	p.Wait()
}
