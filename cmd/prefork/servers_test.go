//go:build linux

package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/loadgen"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("goserver", goServer) }

// goServer is a web server that knows nothing of the library. Descriptor 3 is its
// socket. It reports on descriptor 9 that it is ready. On TERM it answers with
// "Connection: close" until its clients are gone.
func goServer() {
	ln, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	var open sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if ctx.Err() != nil {
				w.Header().Set("Connection", "close")
			}
			fmt.Fprintf(w, "hello of %d\n", os.Getpid())
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Done()
			}
		},
	}
	go srv.Serve(ln)
	os.NewFile(9, "ready").WriteString("\n")
	<-ctx.Done()
	ln.Close()
	open.Wait()
}

// nodeServer is such a server for node.
const nodeServer = `
let stopping = false;
const server = require('http').createServer((req, res) => {
	if (stopping) res.setHeader('Connection', 'close');
	res.end('hello of ' + process.pid + '\n');
});
server.listen({fd: 3}, () => require('fs').writeSync(9, '\n'));
process.on('SIGTERM', () => {
	stopping = true;
	require('net').Server.prototype.close.call(server); // leaves idle connections
});
`

// gunicornConfig reports on descriptor 9 that the worker of gunicorn is ready.
const gunicornConfig = `
import os
def post_worker_init(worker):
	os.write(9, b"\n")
`

const gunicornApp = `
import os
def app(environ, start_response):
	start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
	return [b"hello\n"]
`

const starletApp = `
open(my $ready, '>&=', 9) or die $!;
syswrite($ready, "\n");
close $ready;
sub { [200, ['Content-Type' => 'text/plain'], ["hello of $$\n"]] };
`

// realServers return the command line of a server behind the flags of prefork run
// that it needs. gunicorn 20.1 resets connections that it keeps alive when it ends,
// so it keeps none.
var realServers = map[string]func(t *testing.T, dir string) []string{
	"Starlet": func(t *testing.T, dir string) []string {
		const install = "Debian: apt-get install starlet"
		plackup := preforktest.NeedCommand(t, "plackup", install)
		if exec.Command(preforktest.NeedCommand(t, "perl", install), "-MPlack::Handler::Starlet", "-e", "1").Run() != nil {
			preforktest.Missingf(t, "Starlet is not installed: %s", install)
		}
		return []string{"--", plackup, "-E", "deployment", "-s", "Starlet", "--max-workers", "0", writeFile(t, dir, "app.psgi", starletApp)}
	},
	"gunicorn": func(t *testing.T, dir string) []string {
		gunicorn := preforktest.NeedCommand(t, "gunicorn", "Debian: apt-get install gunicorn")
		writeFile(t, dir, "app.py", gunicornApp)
		return []string{"--pass", "systemd", "--dir", dir, "--", gunicorn, "-c", writeFile(t, dir, "conf.py", gunicornConfig), "-w", "1", "-k", "gthread", "--threads", "4", "--keep-alive", "0", "app:app"}
	},
	"node": func(t *testing.T, dir string) []string {
		node := preforktest.NeedCommand(t, "node", "Debian: apt-get install nodejs")
		return []string{"--", node, "-e", nodeServer}
	},
	"Go": func(t *testing.T, dir string) []string {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"--pass", "none"}
		for _, kv := range preforktest.Environ(t, "goserver") {
			if strings.HasSuffix(kv, "=goserver") {
				args = append(args, "--env", kv)
			}
		}
		return append(args, "--", exe)
	},
}

func writeFile(t *testing.T, dir, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Rolling reloads of real servers lose no request, and with -long none takes twice
// as long as the start of the server. Without it only those run that start fast.
func TestRealServers(t *testing.T) {
	if !testprog.Long() {
		t.Parallel()
	}
	for name, server := range realServers {
		if !testprog.Long() && name != "Go" && name != "Starlet" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := preforktest.SocketDir(t)
			pin := "=3"
			command := server(t, dir)
			if command[1] == "systemd" {
				pin = ""
			}
			args := append([]string{"run", "-n", "2", "--listen", "127.0.0.1:0" + pin, "--ready", "fd:9", "--control", filepath.Join(dir, "control")}, command...)
			p := preforktest.Start(t, "prefork", args...)
			address := p.Expect(`address=(127\S+)`)[1]
			p.Expect("msg=settled .*gen=1")
			start := startTime(t, p)
			var answered atomic.Int64
			cfg := loadgen.Config{
				Network: "tcp", Address: address, KeepAlive: 8, Fresh: 8, MaxTime: 10 * time.Minute,
				Pause: func() time.Duration { return 10 * time.Millisecond },
				Check: func(status int, body []byte) error {
					answered.Add(1)
					if status != http.StatusOK || !strings.HasPrefix(string(body), "hello") {
						return fmt.Errorf("status %d, %q", status, body)
					}
					return nil
				},
			}
			load := loadgen.Start(cfg)
			defer load.Stop()
			reloads := testprog.Times(20)
			for generation := 1; generation <= 1+reloads; generation++ {
				before := answered.Load()
				preforktest.WaitFor(t, "50 more answers", func() bool { return answered.Load() >= before+50 })
				if generation <= reloads {
					p.Signal(syscall.SIGHUP)
					p.Expect(fmt.Sprintf("msg=settled .*gen=%d", generation+1))
				}
			}
			result := load.Stop()
			t.Logf("%d reloads, start %v: %v, slowest %v, p99 %v", reloads, start.Round(time.Millisecond), result, result.Latency.Max, result.Latency.Percentile(99))
			if result.Failed > 0 {
				t.Errorf("%d requests failed: %v", result.Failed, result.Errors)
			}
			if testprog.Long() && result.Latency.Max > 2*start {
				t.Errorf("the slowest request took %v, the start %v", result.Latency.Max, start)
			}
			p.Signal(syscall.SIGTERM)
			testprog.ExpectSuccess(t, p)
		})
	}
}

// startTime returns how long the first worker took until it was ready.
func startTime(t *testing.T, p *preforktest.Program) time.Duration {
	t.Helper()
	text := strings.Join(p.Lines(), "\n")
	var at [2]time.Time
	for i, message := range []string{"worker starting", "worker ready"} {
		found := regexp.MustCompile(`time=(\S+) .*msg="` + message + `" .*slot=0 gen=1`).FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("no line %q", message)
		}
		var err error
		if at[i], err = time.Parse(time.RFC3339, found[1]); err != nil {
			t.Fatal(err)
		}
	}
	return at[1].Sub(at[0])
}

// slowServer is the server of run_test.go with a start that takes some seconds. In
// generations after the second it fails then. It reports by descriptor 9 that it is
// ready.
const slowServer = `
use Time::HiRes;
my $generation = $ENV{SERVER_STARTER_GENERATION};
Time::HiRes::sleep($ARGV[$generation > 2 ? 2 : 1]);
exit 1 if $generation > 2;
open(my $ready, '>&=', 9); # not open with alive
syswrite($ready, "\n") if $ready;
` + server

// A rolling reload of a program whose start takes long loses no request, and none
// waits for the start. A program that fails after a while is given up. The times
// are those of the longest start that is common, and a tenth of them without -long.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	start, failure := 200*time.Millisecond, 150*time.Millisecond
	if testprog.Long() {
		start, failure = 2*time.Second, 1500*time.Millisecond
	}
	for name, ready := range map[string]string{
		"fd":    "fd:9",
		"alive": fmt.Sprintf("alive:%v", start+start/2),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startRun(t, "--listen", "127.0.0.1:0", "--ready", ready, "--", perl, "-e", slowServer, "none", fmt.Sprint(start.Seconds()), fmt.Sprint(failure.Seconds()))
			address := p.Expect(`address=(127\S+)`)[1]
			p.Expect("msg=settled .*gen=1")
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			load := preforktest.StartLoad(t, 8, func(int) error {
				_, err := get(client, address)
				return err
			})
			load.Await(8)
			p.Signal(syscall.SIGHUP)
			p.Expect(`msg="worker starting" .*gen=2`)
			load.Await(50) // while it starts
			p.Expect("msg=settled .*gen=2")
			p.Signal(syscall.SIGHUP)
			p.Expect("new generation failed")
			p.Expect("msg=settled .*gen=2")
			load.Await(8)
			result := load.Stop()
			t.Logf("start %v: %v", start, result)
			if result.Failed > 0 || testprog.Long() && result.Longest > start/4 {
				t.Errorf("start %v: %v", start, result)
			}
			p.Signal(syscall.SIGTERM)
			testprog.ExpectSuccess(t, p)
		})
	}
}
