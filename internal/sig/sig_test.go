//go:build unix

package sig

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// custom is an os.Signal that is not a syscall.Signal.
type custom struct{}

func (custom) Signal()        {}
func (custom) String() string { return "custom signal" }

func TestName(t *testing.T) {
	for _, test := range []struct {
		sig  os.Signal
		want string
	}{
		{syscall.SIGHUP, "SIGHUP"},
		{os.Interrupt, "SIGINT"},
		{os.Kill, "SIGKILL"},
		{syscall.SIGUSR2, "SIGUSR2"},
		{Continue, "SIGCONT"},
		{syscall.Signal(35), "signal 35"},
		{syscall.Signal(0), "signal 0"},
		{nil, "nothing"},
		{custom{}, "custom signal"},
	} {
		if got := Name(test.sig); got != test.want {
			t.Errorf("Name(%v) = %q, want %q", test.sig, got, test.want)
		}
	}
}

// Parse is the inverse of Name, and refuses everything else.
func TestParse(t *testing.T) {
	for sig := syscall.Signal(1); sig <= maxSignal; sig++ {
		if got, err := Parse(Name(sig)); got != sig || err != nil {
			t.Errorf("Parse(%q) = %d, %v; want %d", Name(sig), got, err, sig)
		}
	}
	if got, err := Parse("signal 1"); got != syscall.SIGHUP || err != nil {
		t.Errorf("Parse(signal 1) = %v, %v", got, err)
	}
	for _, name := range []string{"", "nothing", "HUP", "sighup", "1", "signal", "signal 0", "signal -1", "signal 129", "signal x"} {
		if got, err := Parse(name); got != 0 || err == nil || err.Error() != fmt.Sprintf("unknown signal %q", name) {
			t.Errorf("Parse(%q) = %v, %v; want an error", name, got, err)
		}
	}
}

func TestUntrappable(t *testing.T) {
	for sig := syscall.Signal(1); sig < 32; sig++ {
		want := sig == syscall.SIGKILL || sig == syscall.SIGSTOP || sig == syscall.SIGURG
		if why := Untrappable(sig); (why != "") != want {
			t.Errorf("%s: %q, untrappable %t", Name(sig), why, want)
		}
	}
}

// The signals that Untrappable allows can be received.
func TestTrap(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGCONT, syscall.SIGWINCH} {
		c := make(chan os.Signal, 1)
		signal.Notify(c, sig)
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got := <-c; got != sig {
			t.Errorf("received %v, want %v", got, sig)
		}
		signal.Stop(c)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		sig         os.Signal
		check, trap string // parts of the errors; "" for none
	}{
		{syscall.SIGTERM, "", ""},
		{syscall.SIGKILL, "", "cannot be trapped"},
		{syscall.Signal(0), "no signal 0", "no signal 0"},
		{syscall.Signal(64), "", ""},
		{syscall.Signal(65), "no signal 65", "no signal 65"},
		{custom{}, "custom signal (sig.custom) is not a signal", "is not a signal"},
		{nil, "is not a signal", "is not a signal"},
	} {
		for want, err := range map[*string]error{&tt.check: Check(tt.sig), &tt.trap: CheckTrap(tt.sig)} {
			if (err == nil) != (*want == "") || err != nil && !strings.Contains(err.Error(), *want) {
				t.Errorf("%v: %v, want %q", tt.sig, err, *want)
			}
		}
	}
}

func TestCompare(t *testing.T) {
	all := []os.Signal{syscall.SIGTERM, custom{}, syscall.SIGKILL}
	slices.SortFunc(all, Compare)
	if want := []os.Signal{custom{}, syscall.SIGKILL, syscall.SIGTERM}; !slices.Equal(all, want) {
		t.Error(all)
	}
}
