//go:build unix

package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A generation keeps its bytes and its file while it may be spawned, and what two
// generations share is kept for both.
func TestGenerations(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	write := func() {
		t.Helper()
		if err := os.WriteFile(path+".tmp", data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
	}
	var g Generations
	next := func() {
		t.Helper()
		exe, err := g.OpenNext(path)
		if err != nil {
			t.Fatal(err)
		}
		g.SetNext(exe)
	}
	isOpen := func(when string, of Generation, want bool) {
		t.Helper()
		if got := of.Exe.FD() >= 0; got != want {
			t.Errorf("%s: the file is open: %t", when, got)
		}
		if got := of.Passed.fd > 0; got != want {
			t.Errorf("%s: the bytes are open: %t", when, got)
		}
	}
	passed := func() *Passed {
		t.Helper()
		p := NewPassed([]byte("x"))
		if _, err := p.FD(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if g.Get(1) != (Generation{}) {
		t.Error(g.Get(1))
	}
	g.Add(1, nil)
	g.FallBack(1)
	write()
	next()
	shared := passed()
	g.Add(2, shared)
	next()
	g.Add(3, shared)
	two, three := g.Get(2), g.Get(3)
	if two.Exe != three.Exe {
		t.Error("the same file was opened twice")
	}
	g.Forget(3, 1)
	if g.Get(2) != (Generation{}) {
		t.Error("a generation in between is kept")
	}
	isOpen("shared with the newest", two, true)

	write()
	exe, err := g.OpenNext(path)
	if err != nil || exe == three.Exe {
		t.Fatal("another file is the same", err)
	}
	if g.Drop(exe); exe.FD() >= 0 {
		t.Error("a dropped file is open")
	}
	g.Drop(three.Exe) // it is the next one
	g.Drop(nil)
	isOpen("the next one", three, true)
	next()
	g.Add(4, passed())
	four := g.Get(4)
	g.Forget(4, 3)
	isOpen("the fallback", three, true)
	g.FallBack(3)
	g.Add(5, shared)
	if g.Get(5).Exe != three.Exe {
		t.Error("the file of the fallback is not the next one")
	}
	g.Forget(5, 5)
	isOpen("no fallback any more", four, false)
	isOpen("of the newest", three, true)
	write()
	next()
	last := g.next
	g.Close()
	isOpen("closed", three, false)
	if last.FD() >= 0 {
		t.Error("the file of no generation yet is open after Close")
	}
	if _, err := g.OpenNext(path + "x"); err == nil {
		t.Error("a missing file was opened")
	}
	if _, err := g.OpenNext(""); err == nil || !strings.Contains(err.Error(), "by a path") {
		t.Error(err)
	}
}

func TestCheckArgs(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, ""}, {[]string{"server"}, ""}, {[]string{"server", "", strings.Repeat("x", maxArgument-1)}, ""},
		{[]string{}, "no program"}, {[]string{""}, "no program"}, {[]string{"server", "a\x00b"}, "zero byte"},
		{[]string{"server", strings.Repeat("x", maxArgument)}, "pass a file"},
	} {
		if err := CheckArgs(tt.args); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q: %v, want %q", tt.args, err, tt.want)
		}
	}
}
