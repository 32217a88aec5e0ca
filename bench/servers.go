//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// freePort returns a port without a listener.
func freePort() int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0 // the contender's own listen reports the error
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// fasthttpPrefork starts fasthttp's prefork server, whose number of workers is
// GOMAXPROCS.
func fasthttpPrefork(web string, port, workers int, args ...string) spec {
	return spec{
		name: "fasthttp/prefork",
		args: append([]string{web, "fasthttp", "-listen", address(port)}, args...),
		env:  []string{"GOMAXPROCS=" + strconv.Itoa(workers)},
	}
}

// gunicorn has sync workers, its default.
func gunicorn(r *run, port, workers int) (spec, error) {
	path, err := command("gunicorn")
	if err != nil {
		return spec{}, err
	}
	_, err = r.script("gunicorn_app.py")
	return spec{
		name: "gunicorn",
		args: []string{path, "--bind", address(port), "--workers", strconv.Itoa(workers), "--chdir", r.dir, "gunicorn_app:application"},
	}, err
}

// unicorn has its defaults, and a configuration file for the number of workers.
func unicorn(r *run, port, workers int) (spec, error) {
	path, err := command("unicorn")
	if err != nil {
		return spec{}, err
	}
	rackup, err := r.script("unicorn.ru")
	if err != nil {
		return spec{}, err
	}
	config, err := r.write("unicorn.conf", fmt.Sprintf("worker_processes %d\n", workers))
	return spec{name: "unicorn", args: []string{path, "--listen", address(port), "--config-file", config, "--env", "none", rackup}}, err
}

// starlet runs under plackup, as in Starlet's documentation.
func starlet(r *run, port, workers int, options ...string) (spec, error) {
	path, err := command("plackup")
	if err != nil {
		return spec{}, err
	}
	if _, err := perl("Starlet::Server"); err != nil {
		return spec{}, err
	}
	app, err := r.script("starlet.psgi")
	args := append([]string{path, "--server", "Starlet", "--env", "deployment", "--max-workers", strconv.Itoa(workers)}, options...)
	if port > 0 {
		args = append(args, "--listen", address(port))
	}
	return spec{name: "Starlet", args: append(args, app)}, err
}

// ask sends an HTTP request on a new connection and returns the body.
func ask(addr, path string) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return askOn(conn, path, false)
}

func askOn(conn net.Conn, path string, keep bool) (string, error) {
	connection := "close"
	if keep {
		connection = "keep-alive"
	}
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: bench\r\nConnection: %s\r\n\r\n", path, connection); err != nil {
		return "", err
	}
	return readBody(conn)
}

// readBody reads a response with a Content-Length.
func readBody(conn io.Reader) (string, error) {
	var text []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		text = append(text, buf[:n]...)
		head, body, found := strings.Cut(string(text), "\r\n\r\n")
		if found && strings.HasPrefix(head, "HTTP/1.1 200") && len(body) >= contentLength(head) {
			return strings.TrimSpace(body), nil
		}
		if err != nil {
			return "", fmt.Errorf("malformed response %q: %w", text, err)
		}
	}
}

// contentLength returns the Content-Length of a response, or a number above any
// length.
func contentLength(head string) int {
	for line := range strings.Lines(head) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
				return n
			}
		}
	}
	return 1 << 30
}

// serving waits until a process answers on a port and returns the response.
func serving(ctx context.Context, p *program, port int) (string, error) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		answer, err := ask(address(port), "/pid")
		if err == nil {
			return answer, nil
		}
		select {
		case <-p.exited:
			return "", p.errorf("exited")
		case <-ctx.Done():
			return "", ctx.Err()
		default:
		}
		if time.Since(began) > limit {
			return "", p.errorf("no response within %v: %v", limit, err)
		}
	}
}
