package logger

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) {
	preforktest.Main(m, map[string]func(){
		"log": func() { os.Exit(Main("prefork log", os.Args[1:], os.Stderr)) },
		"limited": func() { // to files of 20,000 bytes
			if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 20_000, Max: unix.RLIM_INFINITY}); err != nil {
				panic(err)
			}
			os.Exit(Main("prefork log", os.Args[1:], os.Stderr))
		},
	})
}

// A pipe has a writer and a logger, which may be started again.
type pipe struct {
	t    *testing.T
	r, w *os.File
}

func newPipe(t *testing.T) *pipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Fd() // blocking, as a program has it
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return &pipe{t, r, w}
}

func (p *pipe) start(program string, args ...string) *preforktest.Program {
	p.t.Helper()
	l := preforktest.New(p.t, program, args...)
	l.Cmd.Stdin = p.r
	return l.Start()
}

// open returns a logger in this process.
func (p *pipe) open(args ...string) *logger {
	p.t.Helper()
	o, err := parse(args)
	if err != nil {
		p.t.Fatal(err)
	}
	l := newLogger(o, int(p.r.Fd()))
	if err := l.open(p.t.Logf); err != nil {
		p.t.Fatal(err)
	}
	return l
}

func (p *pipe) print(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil {
		p.t.Fatal(err)
	}
}

// drained waits until the logger has taken all from the pipe.
func (p *pipe) drained() {
	p.t.Helper()
	preforktest.WaitFor(p.t, "the pipe is empty", func() bool {
		n, err := unix.IoctlGetInt(int(p.r.Fd()), unix.TIOCINQ)
		return err == nil && n == 0
	})
}

// end closes the pipe, and expects a logger to end.
func (p *pipe) end(l *preforktest.Program) {
	p.t.Helper()
	p.w.Close()
	expectStatus(p.t, l, 0)
}

func expectStatus(t *testing.T, l *preforktest.Program, want int) {
	t.Helper()
	if state := l.Wait(); state.ExitCode() != want {
		t.Fatalf("the logger ended with %v, want %d:\n%s", state, want, strings.Join(l.Lines(), "\n"))
	}
}

// rotated returns the names of rotated files.
func rotated(path string) []string { return rotatedFiles(path) }

// files returns the names of all files with lines, in order.
func files(dir string) []string { return append(rotated(dir), "current") }

// contents returns the content of all files.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all bytes.Buffer
	for _, name := range files(dir) {
		content, err := readLog(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it is rotated just now
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

// readLog returns the content of a file, which may be compressed.
func readLog(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil || filepath.Ext(path) != ".gz" {
		return content, err
	}
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode()
}

// until waits until the files of a directory have a content.
func until(t *testing.T, dir, want string) {
	t.Helper()
	got := ""
	defer func() {
		if t.Failed() {
			t.Logf("the files have %q", got)
		}
	}()
	preforktest.WaitFor(t, fmt.Sprintf("the files have %q", want), func() bool {
		got = contents(t, dir)
		return got == want
	})
}
