package values

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
)

func TestLists(t *testing.T) {
	if got, err := Delays("0, 1s,2"); err != nil || !slices.Equal(got, []time.Duration{0, time.Second, 2 * time.Second}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, empty := range []string{"", " "} {
		if got, err := Delays(empty); err != nil || got == nil || len(got) != 0 {
			t.Errorf("empty: %#v, %v; want an empty list, which is not nil", got, err)
		}
	}
	if got, err := Codes("0,3, 4"); err != nil || !slices.Equal(got, []int{3, 4}) {
		t.Errorf("%v, %v", got, err)
	}
	for in, want := range map[string]int64{"7": 7, "1K": 1 << 10, "64m": 64 << 20, "2G": 2 << 30} {
		if got, err := Size(in); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]prefork.Rlimit{
		"nofile=7": {Resource: "nofile", Soft: 7, Hard: 7}, "core=0": {Resource: "core"}, "as=1G:2G": {Resource: "as", Soft: 1 << 30, Hard: 2 << 30},
		"core=0:unlimited": {Resource: "core", Hard: prefork.Unlimited}, "stack=unlimited": {Resource: "stack", Soft: prefork.Unlimited, Hard: prefork.Unlimited},
	} {
		if got, err := Limit(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string][2]string{"": {}, "www": {"www", ""}, "www:adm": {"www", "adm"}, "7:8": {"7", "8"}} {
		if user, group, err := User(in); err != nil || user != want[0] || group != want[1] {
			t.Errorf("%s: %s, %s, %v", in, user, group, err)
		}
	}
	for in, want := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "SIGHUP": syscall.SIGHUP, "hup": syscall.SIGHUP, "1": syscall.SIGHUP} {
		if got, err := Signal(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for in, want := range map[string]prefork.Restart{"always": prefork.RestartAlways, "on-failure": prefork.RestartOnFailure, "never": prefork.RestartNever} {
		if got, err := Restart(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		parse func(string) error
		in    []string
	}{
		"signal":   {of(Signal), []string{"", "X", "0", "65", "-1"}},
		"duration": {of(Duration), []string{"", "x", "-1s", "1e10"}},
		"delays":   {of(Delays), []string{"1s,,2s", "x", "-1"}},
		"restart":  {of(Restart), []string{"", "x"}},
		"codes":    {of(Codes), []string{"256", "-1", "1,,2"}},
		"size":     {of(Size), []string{"", "M", "9223372036854775807G", "-1"}},
		"limit":    {of(Limit), []string{"nofile", "=1", "nofile=", "nofile=x", "nofile=2:1", "nofile=1:0", "nofile=1:", "nofile=-1"}},
		"user":     {func(s string) error { _, _, err := User(s); return err }, []string{":", "www:", ":adm"}},
	} {
		for _, in := range c.in {
			if c.parse(in) == nil {
				t.Errorf("%s %q: no error", name, in)
			}
		}
	}
}

func of[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error { _, err := parse(s); return err }
}
