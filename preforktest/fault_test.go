package preforktest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func init() { Register("attempts", attempts) }

// attempts reads names of operations, tries each, and writes whether it
// succeeded.
func attempts() {
	for {
		var operation string
		if _, err := fmt.Scanln(&operation); err != nil {
			return
		}
		var err error
		switch operation {
		case "open":
			var f *os.File
			if f, err = os.Open(os.DevNull); err == nil {
				f.Close()
			}
		case "start":
			err = exec.Command("true").Run()
		case "pid":
			fmt.Println("pid", os.Getpid())
			continue
		}
		fmt.Println(operation, err == nil)
	}
}

// newAttempts returns the program "attempts", not yet started, and a function
// that sends it an operation.
func newAttempts(t *testing.T) (p *Program, try func(operation string)) {
	t.Helper()
	p = New(t, "attempts")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd.Stdin = r
	t.Cleanup(func() { w.Close() })
	return p, func(operation string) { fmt.Fprintln(w, operation) }
}

func TestStarve(t *testing.T) {
	p, try := newAttempts(t)
	p.Start()
	for operation, starve := range map[string]func() func(){
		"open": p.StarveFiles, "start": p.StarveProcesses,
	} {
		try(operation)
		p.Expect(`^` + operation + ` true$`)
		restore := starve()
		try(operation)
		p.Expect(`^` + operation + ` false$`)
		restore()
		restore()
		try(operation)
		p.Expect(`^` + operation + ` true$`)
	}
}

func TestFreeze(t *testing.T) {
	p, try := newAttempts(t)
	p.Start()
	thaw := Freeze(t, p.PID())
	try("open")
	if lines := p.Lines(); len(lines) > 0 {
		t.Errorf("output of a frozen program: %q", lines)
	}
	thaw()
	p.Expect(`^open true$`)
}

func TestAsInit(t *testing.T) {
	p, try := newAttempts(t)
	p.AsInit().Start()
	try("pid")
	p.Expect(`^pid 1$`)
	if p.PID() == 1 {
		t.Error("PID is not the id outside of the namespace")
	}
}

func TestLoad(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	errExpected := errors.New("expected")
	load := StartLoad(t, 3, func(client int) error {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if client == 2 {
			time.Sleep(time.Millisecond)
			return errExpected
		}
		return nil
	})
	load.Await(100)
	load.Await(100)
	r := load.Stop()
	ln.Close()
	if r.Requests < 200 || r.Failed == 0 || r.Failed == r.Requests || r.Longest == 0 {
		t.Errorf("%+v", r)
	}
	for _, err := range r.Errors {
		if err != errExpected {
			t.Error(err)
		}
	}
	if s := r.String(); !strings.Contains(s, " requests, ") ||
		!strings.HasSuffix(s, ", first error: expected") {
		t.Error(s)
	}
	if again := load.Stop(); again.Requests != r.Requests {
		t.Errorf("result after Stop: %v", again)
	}
}

// LoadResult keeps the first thousand errors (maxLoadErrors) and counts all.
func TestMaxLoadErrors(t *testing.T) {
	l := &Load{changed: make(chan struct{})}
	for i := range 1001 {
		l.record(fmt.Errorf("error %d", i), time.Duration(i))
	}
	l.record(nil, 0)
	r := l.result
	if r.Requests != 1002 || r.Failed != 1001 || len(r.Errors) != 1000 || r.Longest != 1000 {
		t.Errorf("%d requests, %d failed, %d errors, longest %d; want 1002, 1001, 1000, 1000",
			r.Requests, r.Failed, len(r.Errors), r.Longest)
	}
	if r.Errors[999].Error() != "error 999" {
		t.Errorf("last error: %v", r.Errors[999])
	}
}
