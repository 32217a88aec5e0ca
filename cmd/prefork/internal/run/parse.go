package run

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/values"
)

// parseTrap parses a value of --trap: SIG=ACTION.
func parseTrap(s string) (received syscall.Signal, f prefork.Forward, err error) {
	fail := func(err error) (syscall.Signal, prefork.Forward, error) {
		return 0, f, fmt.Errorf("--trap %s: %w", s, err)
	}
	name, action, ok := strings.Cut(s, "=")
	if !ok {
		return fail(fmt.Errorf("it has no action: give it as HUP=rolling, HUP=TERM, HUP=TERM/1s or USR2=none"))
	}
	if received, err = values.Signal(name); err != nil {
		return fail(err)
	}
	action, wait, timed := strings.Cut(action, "/")
	var d time.Duration
	if timed {
		if d, err = values.Duration(wait); err != nil {
			return fail(err)
		}
	}
	switch {
	case action == "none" && !timed:
		return received, f, nil
	case action == "rolling":
		f.Rolling, f.Linger = true, d
		return received, f, nil
	}
	sent, err := values.Signal(action)
	if err != nil {
		return fail(fmt.Errorf("the action %q is neither rolling, none nor a signal", action))
	}
	f.Signal, f.Interval = sent, d
	return received, f, nil
}

// A ready says how a program shows that it is ready.
type ready struct {
	after   time.Duration
	fd      int
	notify  bool
	url     string // asked until it answers
	tcp     string // connected to until it accepts
	explain string // the value, for the log
}

func parseReady(s string) (r ready, err error) {
	r.explain = s
	kind, value, _ := strings.Cut(s, ":")
	switch kind {
	case "at-once", "notify":
		if s != kind {
			err = fmt.Errorf("%s takes no value", kind)
		}
		r.notify = kind == "notify"
	case "alive":
		r.after, err = values.Duration(value)
		if err == nil && r.after > 0 && r.after < time.Millisecond {
			err = fmt.Errorf("%v is too short for a program", r.after)
		}
	case "fd":
		if r.fd, err = strconv.Atoi(value); err != nil || r.fd < 3 {
			err = fmt.Errorf("%q is not a number of a descriptor from 3 up", value)
		}
	case "http":
		r.url = value
		if strings.HasPrefix(value, "//") { // http://host/ is a URL itself
			r.url = s
		}
		var u *url.URL
		if u, err = url.Parse(expand(r.url, 0, 1)); err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			err = fmt.Errorf("%q is not a URL such as http://127.0.0.1:8080/health", r.url)
		}
	case "https":
		return parseReady("http:" + s)
	case "tcp":
		r.tcp = value
		if _, _, err = inet("tcp", expand(value, 0, 1)); err == nil && !strings.Contains(value, ":") {
			r.tcp = "127.0.0.1:" + value
		}
	default:
		err = fmt.Errorf("it is none of alive:1s, fd:3, notify, http://127.0.0.1:8080/, tcp:127.0.0.1:8080 and at-once")
	}
	if err != nil {
		return r, fmt.Errorf("--ready %s: %w", s, err)
	}
	return r, nil
}

// parseGiveUp parses a value of --give-up: N or N/D. 0 means never.
func parseGiveUp(s string) (prefork.CrashLoop, error) {
	never := prefork.CrashLoop{Failures: -1}
	count, window, timed := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return never, fmt.Errorf("--give-up %s: %q is not a number of failures: give it as 5/1m", s, count)
	}
	loop := prefork.CrashLoop{Failures: n}
	if timed {
		if loop.Window, err = values.Duration(window); err == nil && loop.Window == 0 {
			err = fmt.Errorf("the time is 0")
		}
		if err != nil {
			return never, fmt.Errorf("--give-up %s: %w", s, err)
		}
	}
	if n == 0 {
		return never, nil
	}
	return loop, nil
}

// parseCPUs parses a value of --cpus: numbers and ranges, as taskset has them. ""
// means those of this process.
func parseCPUs(s string) (cpus []int, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 10)
		last, err2 := strconv.ParseUint(high, 10, 10)
		if err1 != nil || err2 != nil || first > last {
			return nil, fmt.Errorf("--cpus %s: %q is not the number of a CPU or a range: give it as 0-3,8", s, part)
		}
		for n := first; n <= last; n++ {
			cpus = append(cpus, int(n))
		}
	}
	return cpus, nil
}

// parsePass parses a value of --pass.
func parsePass(s string) (starter, systemd bool, err error) {
	for part := range strings.SplitSeq(s, ",") {
		switch part {
		case "starter":
			starter = true
		case "systemd":
			systemd = true
		case "none":
			if s != part {
				return false, false, fmt.Errorf("--pass %s: none stands alone", s)
			}
		default:
			return false, false, fmt.Errorf("--pass %s: %q is none of starter, systemd and none", s, part)
		}
	}
	return starter, systemd, nil
}

// parseEnv checks the values of --env and --unset.
func parseEnv(set, unset []string) error {
	for _, kv := range set {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.IndexByte(value, 0) >= 0 {
			return fmt.Errorf("--env %s: give it as NAME=VALUE", kv)
		}
	}
	for _, name := range unset {
		if name == "" || strings.Contains(name, "=") {
			return fmt.Errorf("--unset %q: it is not the name of a variable", name)
		}
	}
	return nil
}

// expand replaces %i by the slot, %g by the generation and %% by a percent sign.
// A percent sign before another character stays.
func expand(s string, slot, generation int) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return strings.NewReplacer("%i", strconv.Itoa(slot), "%g", strconv.Itoa(generation), "%%", "%").Replace(s)
}

func expandAll(list []string, slot, generation int) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = expand(s, slot, generation)
	}
	return out
}
