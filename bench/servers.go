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

// freePort finds a port that nobody listens on now.
func freePort() int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0 // whoever wants to listen on it says why not
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// fasthttpPrefork is fasthttp's own prefork server: it takes the number of its workers from GOMAXPROCS.
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

// starlet runs under plackup, as Starlet's documentation has it.
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

// ask makes one HTTP request on a new connection and returns the body.
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

// readBody reads a response as far as its Content-Length says.
func readBody(conn io.Reader) (string, error) {
	var text []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		text = append(text, buf[:n]...)
		head, body, whole := strings.Cut(string(text), "\r\n\r\n")
		if whole && strings.HasPrefix(head, "HTTP/1.1 200") && len(body) >= contentLength(head) {
			return strings.TrimSpace(body), nil
		}
		if err != nil {
			return "", fmt.Errorf("no answer, but %q: %w", text, err)
		}
	}
}

// contentLength is what a response's head says, or more than there can be.
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

// serving waits until somebody answers on a port, and returns what.
func serving(ctx context.Context, p *program, port int) (string, error) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		answer, err := ask(address(port), "/pid")
		if err == nil {
			return answer, nil
		}
		select {
		case <-p.ended:
			return "", p.failed("it has ended")
		case <-ctx.Done():
			return "", ctx.Err()
		default:
		}
		if time.Since(began) > limit {
			return "", p.failed("it does not serve within %v: %v", limit, err)
		}
	}
}
