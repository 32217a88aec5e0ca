//go:build unix

package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

// limit is the maximum time that a test waits for a process.
const limit = 30 * time.Second

// run runs a program until it exits and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	p := preforktest.Start(t, name, args...)
	if state := p.Wait(); !state.Success() {
		t.Errorf("%s: %v", name, state)
	}
	p.WaitGone()
	return strings.Join(p.Lines(), "\n")
}

// An owner replaces the Manager: it has a Table and receives its notes.
type owner struct {
	Table
	t      testing.TB
	notes  chan Note
	early  []Note // received while await waited for another
	lastID uint64
}

// eachTable runs a test with each of the system's tables.
func eachTable(t *testing.T, test func(t *testing.T, o *owner)) {
	for _, name := range tableNames {
		t.Run(name, func(t *testing.T) { test(t, newOwner(t, name)) })
	}
}

func newOwner(t testing.TB, name string) *owner {
	return newOwnerOf(t, func(notify func(Note)) Table { return newTable(name, notify) })
}

func newOwnerOf(t testing.TB, table func(func(Note)) Table) *owner {
	adoptOrphans()
	o := &owner{t: t, notes: make(chan Note, 10_000)}
	o.Table = table(func(n Note) {
		select {
		case o.notes <- n:
		default:
			panic("endless notes")
		}
	})
	t.Cleanup(func() { o.Close() })
	return o
}

// await waits for the note.
func (o *owner) await(want Note) {
	o.t.Helper()
	if i := slices.Index(o.early, want); i >= 0 {
		o.early = slices.Delete(o.early, i, i+1)
		return
	}
	timeout := time.After(limit)
	for {
		select {
		case n := <-o.notes:
			if n == want {
				return
			}
			o.early = append(o.early, n)
		case <-timeout:
			o.t.Fatalf("no note %+v; there were %+v", want, o.early)
		}
	}
}

// count returns the number of notes like want that were sent and not awaited.
func (o *owner) count(want Note) (n int) {
	for len(o.notes) > 0 {
		o.early = append(o.early, <-o.notes)
	}
	for _, note := range o.early {
		if note == want {
			n++
		}
	}
	return n
}

// A child is a process that a Table has started. It cannot be a
// preforktest.Program, because the Table, which is under test, starts and reaps
// it. The test uses its standard input and output.
type child struct {
	Process
	id    uint64
	o     *owner
	in    *os.File
	out   *os.File
	lines *bufio.Reader
}

// start starts a program with its control socket at descriptor 3. The changes
// apply to its Spec.
func (o *owner) start(name string, args []string, changes ...func(*Spec)) *child {
	o.t.Helper()
	self, err := os.Executable()
	if err != nil {
		o.t.Fatal(err)
	}
	return o.startSpec(Spec{Path: self, Args: append([]string{name}, args...), Env: preforktest.Environ(o.t, name)}, changes...)
}

func (o *owner) startSpec(spec Spec, changes ...func(*Spec)) *child {
	o.t.Helper()
	inR, inW := pipe(o.t)
	outR, outW := pipe(o.t)
	spec.Files = []uintptr{inR.Fd(), outW.Fd(), 2, 0}
	spec.Control = 3
	for _, change := range changes {
		change(&spec)
	}
	o.lastID++
	c := &child{id: o.lastID, o: o, in: inW, out: outR, lines: bufio.NewReader(outR)}
	var err error
	c.Process, err = o.Start(c.id, spec)
	inR.Close()
	outW.Close()
	if err != nil {
		o.t.Fatal(err)
	}
	return c
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(limit))
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}

// line returns the next line that the process prints, without the newline, or
// "EOF".
func (c *child) line() string {
	c.o.t.Helper()
	return line(c.o.t, c.lines)
}

func line(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err == io.EOF {
		return s + "EOF"
	}
	if err != nil {
		t.Fatalf("line: %v after %q", err, s)
	}
	return s[:len(s)-1]
}

func (c *child) expect(want string) {
	c.o.t.Helper()
	if got := c.line(); got != want {
		c.o.t.Fatalf("the process prints %q, want %q", got, want)
	}
}

// reap waits for the exit of the process and returns its status.
func (c *child) reap() Status {
	c.o.t.Helper()
	for {
		c.o.await(Note{c.id, Exited})
		status, usage, ok := c.Reap()
		if !ok {
			continue
		}
		if (usage == nil) != status.Unknown {
			c.o.t.Errorf("%v with rusage %v", status, usage)
		}
		c.in.Close()
		c.out.Close()
		return status
	}
}

// readControl reads n bytes from the control socket, or until io.EOF.
func (c *child) readControl(n int) (string, error) {
	c.o.t.Helper()
	var got []byte
	for buf := make([]byte, 1000); len(got) < n; {
		k, err := c.Read(buf)
		got = append(got, buf[:k]...)
		switch {
		case err == ErrWouldBlock:
			c.o.await(Note{c.id, Readable})
		case err != nil:
			return string(got), err
		}
	}
	return string(got), nil
}

// expectRead reads once and fails unless the result is want.
func (c *child) expectRead(want string, size int) {
	c.o.t.Helper()
	buf := make([]byte, size)
	if n, err := c.Read(buf); string(buf[:n]) != want || err != nil {
		c.o.t.Fatalf("control socket: %q, %v; want %q", buf[:n], err, want)
	}
}

// expectWouldBlock fails unless there is nothing to read.
func (c *child) expectWouldBlock() {
	c.o.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != ErrWouldBlock {
		c.o.t.Fatalf("control socket: %d bytes, %v; want ErrWouldBlock", n, err)
	}
}

// expectEnd fails unless the control socket is at its end.
func (c *child) expectEnd() {
	c.o.t.Helper()
	if got, err := c.readControl(1); got != "" || err != io.EOF {
		c.o.t.Fatalf("control socket: %q, %v; want its end", got, err)
	}
}

func init() { preforktest.Register("exit", exitProgram) }

// exitProgram exits at the end of its standard input, with the code in its
// argument.
func exitProgram() {
	io.Copy(io.Discard, os.Stdin)
	code, _ := strconv.Atoi(os.Args[1])
	os.Exit(code)
}

func init() { preforktest.Register("echo", echoProgram) }

// echoProgram prints "up" and then copies its standard input to its
// standard output. It prints each SIGTERM and continues.
func echoProgram() {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		for range terms {
			fmt.Println("TERM")
		}
	}()
	fmt.Println("up")
	io.Copy(os.Stdout, os.Stdin)
}

// controlEnd returns a program's end of the control socket.
func controlEnd() *os.File { return os.NewFile(3, "control") }

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(98)
	}
}
