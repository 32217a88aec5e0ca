package watch

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/ops/monitor"
)

func defaults() Options {
	return Options{
		Dir: "/srv/services", Backoff: DefaultBackoff, StopTimeout: DefaultStop, Settle: DefaultSettle, Max: DefaultMax, Style: "runit",
		Options: output.Options{Log: "-", LogPrefix: true},
	}
}

func TestPlan(t *testing.T) {
	p, err := defaults().plan()
	if err != nil {
		t.Fatal(err)
	}
	want := monitor.Config{
		Dir: "/srv/services", Backoff: []time.Duration{0, 5 * time.Second, 15 * time.Second, time.Minute},
		StopTimeout: 3 * time.Second, Settle: 300 * time.Millisecond, Max: 4096,
	}
	if !reflect.DeepEqual(p.config, want) || p.Name != "services" {
		t.Errorf("%+v of name %s, want %+v", p.config, p.Name, want)
	}
	for name, c := range map[string]struct {
		set  func(*Options)
		want func(monitor.Config) bool
	}{
		"empty backoff is no delay (C2)": {func(o *Options) { o.Backoff = "" }, func(c monitor.Config) bool { return c.Backoff != nil && len(c.Backoff) == 0 }},
		"never killed":                   {func(o *Options) { o.StopTimeout = 0 }, func(c monitor.Config) bool { return c.StopTimeout < 0 }},
		"s6":                             {func(o *Options) { o.Style = "s6" }, func(c monitor.Config) bool { return c.Style == monitor.StyleS6 }},
		"once":                           {func(o *Options) { o.Once = true }, func(c monitor.Config) bool { return c.Once }},
	} {
		o := defaults()
		c.set(&o)
		if p, err := o.plan(); err != nil || !c.want(p.config) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// Bad values are usage errors, which name the flag.
func TestPlanErrors(t *testing.T) {
	for flag, set := range map[string]func(*Options){
		"no directory":   func(o *Options) { o.Dir = "" },
		"--backoff":      func(o *Options) { o.Backoff = "0,x" },
		"--stop-timeout": func(o *Options) { o.StopTimeout = -1 },
		"--settle":       func(o *Options) { o.Settle = 0 },
		"--max":          func(o *Options) { o.Max = 0 },
		"--style":        func(o *Options) { o.Style = "x" },
		"--busy-exit":    func(o *Options) { o.BusyExit = 256 },
		"--log-max":      func(o *Options) { o.LogMax = "1M" },
	} {
		o := defaults()
		set(&o)
		_, err := o.plan()
		if err == nil || !strings.Contains(err.Error(), flag) || o.Status(err) != 2 {
			t.Errorf("%s: %v, status %d", flag, err, o.Status(err))
		}
	}
}

func TestStatus(t *testing.T) {
	o := Options{BusyExit: 9}
	for want, errs := range map[int][]error{
		0: {nil},
		9: {&BusyError{}, fmt.Errorf("x: %w", &BusyError{PID: 7})},
		2: {&UsageError{errors.New("x")}},
		1: {errors.New("x"), errKilled, &journal.LockedError{}},
	} {
		for _, err := range errs {
			if got := o.Status(err); got != want {
				t.Errorf("%v: %d, want %d", err, got, want)
			}
		}
	}
}
