package preforktest

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func init() { Register("print", printArgs) }

// printArgs writes its arguments alternately to stdout and stderr, and exits
// with status 7.
func printArgs() {
	for i, arg := range os.Args[1:] {
		fmt.Fprint([]*os.File{os.Stdout, os.Stderr}[i%2], arg)
	}
	os.Exit(7)
}

func TestOutputIsInOrder(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	p := Start(t, "print", "one\n", "two\n", "thr", "ee\n", "\n", "four\r\n", long+"\n", "last")
	if got := p.NextLine(); got != "one" {
		t.Errorf("first line %q", got)
	}
	if got := p.Expect(`^t(h)(re)e`); !slices.Equal(got, []string{"three", "h", "re"}) {
		t.Errorf("submatches %q", got)
	}
	if got := p.NextLine(); got != "" {
		t.Errorf("line %q, want an empty one", got)
	}
	if code := p.Wait().ExitCode(); code != 7 {
		t.Errorf("exit code %d", code)
	}
	p.WaitGone()
	want := []string{"one", "two", "three", "", "four", long, "last"}
	if got := p.Lines(); !slices.Equal(got, want) {
		t.Errorf("lines %.80q", got)
	}
	p.Expect("^last$") // a line that was read before Expect is called
}

func TestExpectAll(t *testing.T) {
	t.Parallel()
	p := Start(t, "print", "b 1\n", "a 1\n", "noise\n", "a 2\n", "end\n")
	got := p.ExpectAll(`^a (\d)$`, `^a (2)$`, `^b`)
	if fmt.Sprint(got) != "[[a 1 1] [a 2 2] [b]]" {
		t.Errorf("matches %q", got)
	}
	if line := p.NextLine(); line != "end" {
		t.Errorf("next line %q, want the one after the last match", line)
	}
	ft := &fakeT{}
	ft.run(func() { Start(ft, "print", "a\n").ExpectAll("a", "b") })
	ft.wantErrors(t, `1 of 2 lines, no line for [<nil> b]: end of the output`)
}

func TestExpectFails(t *testing.T) {
	t.Parallel()
	for want, expect := range map[string]func(*Program){
		`exit status 7): line 2 of 2 that matches "l": end of the output`: func(p *Program) {
			p.ExpectN(2, "l")
		},
		`next line: end of the output`: func(p *Program) {
			p.ExpectN(2, "")
			p.NextLine()
		},
		`error parsing regexp`: func(p *Program) {
			p.Expect("(")
		},
	} {
		ft := &fakeT{}
		ft.run(func() { expect(Start(ft, "print", "hello\n", "you\n")) })
		ft.wantErrors(t, want)
		if !ft.fatal {
			t.Errorf("%s: not fatal", want)
		}
	}
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool")
		p.Expect("^ready$")
		ft.deadline = time.Now().Add(10 * time.Millisecond)
		p.Expect("^never$")
	})
	ft.wantErrors(t, "running): line 1 of 1 that matches \"^never$\": timeout")
}

// The transcript has the last 200 lines (shownLines).
func TestTranscript(t *testing.T) {
	t.Parallel()
	o := output{changed: make(chan struct{})}
	if got := o.transcript(); got != "no output" {
		t.Errorf("%q", got)
	}
	for i := range 202 {
		o.add(fmt.Sprint("line ", i))
	}
	o.next = 201
	got := o.transcript()
	if !strings.Contains(got, "\n  (2 lines)\n") || strings.Contains(got, "line 1\n") ||
		!strings.Contains(got, " line 2\n") {
		t.Errorf("not the last 200 lines: %s", got)
	}
	if marks := strings.Count(got, "\n>"); marks != 1 {
		t.Errorf("%d lines marked, want the one that is not consumed", marks)
	}
}

func init() { Register("environ", environ) }

func environ() {
	wd, _ := os.Getwd()
	fmt.Println(os.Getenv("GORACE"), os.Getenv("MINE"), wd, os.Args[1:])
}

func TestCmdMayBeChanged(t *testing.T) {
	t.Parallel()
	p := New(t, "environ", "-a", "b")
	p.Cmd.Env = append(p.Cmd.Env, "MINE=1", "GORACE=halt_on_error=1")
	p.Cmd.Dir = "/"
	p.Start().Expect(`^halt_on_error=1 atexit_sleep_ms=0 1 / \[-a b\]$`)

	p = New(t, "environ")
	if _, err := exec.LookPath("env"); err != nil {
		t.Skip(err)
	}
	p.Cmd = exec.Command("env", "MINE=through env", p.Cmd.Path, "c")
	p.Start().Expect(` through env .* \[c\]$`)
}

// The process of Environ has the variable of the program, and one GORACE.
func TestEnviron(t *testing.T) {
	t.Setenv("GORACE", "halt_on_error=1")
	t.Setenv("MINE", "1")
	cmd := exec.Command(os.Args[0], "-a")
	cmd.Env = Environ(t, "environ")
	out, err := cmd.CombinedOutput()
	wd, _ := os.Getwd()
	want := fmt.Sprintf("halt_on_error=1 atexit_sleep_ms=0 1 %s [-a]\n", wd)
	if err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
	if n := strings.Count(strings.Join(cmd.Env, "\n"), "GORACE="); n != 1 {
		t.Errorf("GORACE is set %d times", n)
	}
	ft := &fakeT{}
	ft.run(func() { Environ(ft, "nonsense") })
	ft.wantErrors(t, `program "nonsense": not registered: call Register`)
}
