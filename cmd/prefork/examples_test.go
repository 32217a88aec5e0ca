//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

// exampleLines returns the command lines of examples/run, without "./prefork".
func exampleLines(t *testing.T) (lines [][]string) {
	t.Helper()
	sh := preforktest.NeedCommand(t, "sh", "a POSIX shell")
	text, err := os.ReadFile("../../examples/run/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^    \./prefork (run .*)$`).FindAllStringSubmatch(string(text), -1) {
		words, err := exec.Command(sh, "-c", `for a in `+m[1]+`; do printf '%s\0' "$a"; done`).Output()
		if err != nil {
			t.Fatalf("%s: %v", m[1], err)
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00"))
	}
	return lines
}

// The lines of examples/run serve, also on an address of IPv4 and one of IPv6 if the
// line has both, before and after a reload. Without -long only those run that start
// fast, with one worker.
func TestExampleLines(t *testing.T) {
	t.Parallel()
	lines := exampleLines(t)
	if len(lines) != 4 {
		t.Fatalf("%d lines in examples/run/README.md, want 4: %q", len(lines), lines)
	}
	for _, line := range lines {
		at := slices.Index(line, "--")
		program := line[at+1]
		t.Run(filepath.Base(program), func(t *testing.T) {
			dir := preforktest.SocketDir(t)
			switch program {
			case "plackup":
				if exec.Command(preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl"), "-MPlack::Handler::Starlet", "-e", "1").Run() != nil {
					preforktest.Missingf(t, "Starlet is not installed: Debian: apt-get install starlet")
				}
			case "./server":
				line[at+1] = writeFile(t, dir, "server", "#!"+preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")+"\n"+portServer)
				if err := os.Chmod(line[at+1], 0o700); err != nil {
					t.Fatal(err)
				}
			default:
				if !testprog.Long() {
					preforktest.Skipf(t, "%s starts slowly: run with -long", program)
				}
				preforktest.NeedCommand(t, program, "Debian: apt-get install gunicorn nodejs")
				writeFile(t, dir, "app.py", gunicornApp)
			}
			port := freePort(t)
			for i := range line {
				line[i] = strings.ReplaceAll(line[i], "808%i", fmt.Sprint(port)) // one worker
				line[i] = strings.ReplaceAll(line[i], "8080", fmt.Sprint(port))
				line[i] = strings.ReplaceAll(line[i], "examples/perl/app.psgi", testDataPath(t, "../../examples/perl/app.psgi"))
				if line[i] == "-n" {
					line[i+1] = "1"
				}
			}
			p := preforktest.New(t, "prefork", slices.Insert(line, 1, "--control", filepath.Join(dir, "control"))...)
			p.Cmd.Dir = dir
			p.Start()
			hosts := []string{"127.0.0.1"}
			if slices.Contains(line, fmt.Sprintf(":%d", port)) {
				hosts = append(hosts, "[::1]")
			}
			client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			for generation := 1; generation <= 2; generation++ {
				p.Expect(fmt.Sprintf("msg=settled .*gen=%d", generation))
				for _, host := range hosts {
					if _, err := get(client, fmt.Sprintf("%s:%d", host, port)); err != nil {
						t.Errorf("generation %d: %v", generation, err)
					}
				}
				if generation == 1 {
					p.Signal(syscall.SIGHUP)
				}
			}
			// Starlet waits for a client if TERM comes between its look at it and accept.
			clients := preforktest.StartLoad(t, 1, func(int) error {
				get(client, fmt.Sprintf("127.0.0.1:%d", port))
				return nil
			})
			p.Signal(syscall.SIGTERM)
			testprog.ExpectSuccess(t, p)
			clients.Stop()
			if text := strings.Join(p.Lines(), "\n"); strings.Contains(text, "level=WARN") {
				t.Errorf("warnings: %s", text)
			}
		})
	}
}

// portServer is a web server that binds a port itself: server -listen HOST:PORT.
const portServer = `
use strict; use Socket;
my ($port) = $ARGV[1] =~ /:(\d+)$/;
socket(my $s, AF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
bind($s, sockaddr_in($port, INADDR_LOOPBACK)) and listen($s, 5) or die "port $port: $!";
while (accept(my $c, $s)) {
	sysread($c, my $request, 4096);
	syswrite($c, "HTTP/1.0 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
}
`

func testDataPath(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
