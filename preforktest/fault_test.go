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

// The program "tries" does what its argument says for each line that it reads, and tells how that went.
var _ = register("tries", func() {
	for {
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return
		}
		var err error
		switch line {
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
		fmt.Println(line, err == nil)
	}
})

func tries(t *testing.T) (p *Program, do func(what string)) {
	t.Helper()
	p = New(t, "tries")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Cmd.Stdin = r
	t.Cleanup(func() { w.Close() })
	return p, func(what string) { fmt.Fprintln(w, what) }
}

func TestStarve(t *testing.T) {
	p, do := tries(t)
	p.Start()
	for what, starve := range map[string]func() func(){"open": p.StarveFiles, "start": p.StarveProcesses} {
		do(what)
		p.Expect(`^` + what + ` true$`)
		restore := starve()
		do(what)
		p.Expect(`^` + what + ` false$`)
		restore()
		restore()
		do(what)
		p.Expect(`^` + what + ` true$`)
	}
}

func TestFreeze(t *testing.T) {
	p, do := tries(t)
	p.Start()
	thaw := Freeze(t, p.PID())
	do("open")
	if lines := p.Lines(); len(lines) > 0 {
		t.Errorf("a frozen program says %q", lines)
	}
	thaw()
	p.Expect(`^open true$`)
}

func TestAsInit(t *testing.T) {
	p, do := tries(t)
	p.AsInit().Start()
	do("pid")
	p.Expect(`^pid 1$`)
	if p.PID() == 1 {
		t.Error("PID is not the id outside")
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
	broken := errors.New("as it should be")
	load := StartLoad(t, 3, func(client int) error {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if client == 2 {
			time.Sleep(time.Millisecond)
			return broken
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
		if err != broken {
			t.Error(err)
		}
	}
	if s := r.String(); !strings.Contains(s, "requests, ") || !strings.HasSuffix(s, "first error: as it should be") {
		t.Error(s)
	}
	if again := load.Stop(); again.Requests != r.Requests {
		t.Errorf("after the end: %v", again)
	}
}
