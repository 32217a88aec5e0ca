// Package values parses the values that flags of the command, and files of service
// directories, have in common: signals, delays, users, limits. Errors do not name
// the flag or the file.
package values

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/sig"
)

// Signal parses the name of a signal, with or without SIG, or its number.
func Signal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("%q is not the number of a signal", s)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	signal, err := sig.Parse(name)
	if err != nil {
		return 0, fmt.Errorf("%q is not the name of a signal, such as TERM", s)
	}
	return signal, nil
}

// Duration parses a duration. A number alone means seconds, as with start_server.
func Duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, err2 := strconv.ParseFloat(s, 64); err2 == nil && seconds >= 0 && seconds < 1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time such as 500ms, 10s or 2m", s)
	}
	return d, nil
}

// Delays parses a list of delays. The empty list, which is not nil, means no delays.
func Delays(s string) ([]time.Duration, error) {
	list := []time.Duration{}
	if strings.TrimSpace(s) == "" {
		return list, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		d, err := Duration(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// Restart parses a policy for workers that have exited on their own.
func Restart(s string) (prefork.Restart, error) {
	switch s {
	case "always":
		return prefork.RestartAlways, nil
	case "on-failure":
		return prefork.RestartOnFailure, nil
	case "never":
		return prefork.RestartNever, nil
	}
	return 0, fmt.Errorf("it is none of always, on-failure and never")
}

// Codes parses a list of exit codes that mean success.
func Codes(s string) (codes []int, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 0 || n > 255 {
			return nil, fmt.Errorf("%q is not an exit code from 0 to 255", part)
		}
		if n > 0 { // 0 always is one
			codes = append(codes, n)
		}
	}
	return codes, nil
}

// Size parses a number of bytes, with K, M or G for powers of 1024.
func Size(s string) (int64, error) {
	digits, unit := s, int64(1)
	if s != "" {
		if at := strings.IndexByte("KMG", s[len(s)-1]&^0x20); at >= 0 && s[len(s)-1] > '9' {
			digits, unit = s[:len(s)-1], 1<<(10*(at+1))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a size such as 64M", s)
	}
	return n * unit, nil
}

// User parses USER or USER:GROUP.
func User(s string) (user, group string, err error) {
	user, group, both := strings.Cut(s, ":")
	if s != "" && user == "" || both && group == "" {
		return "", "", fmt.Errorf("give it as USER or USER:GROUP, by name or number")
	}
	return user, group, nil
}

// Limit parses NAME=SOFT or NAME=SOFT:HARD.
func Limit(s string) (l prefork.Rlimit, err error) {
	name, value, ok := strings.Cut(s, "=")
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	l.Resource = name
	if l.Soft, err = amount(soft); err == nil {
		l.Hard, err = amount(hard)
	}
	switch {
	case !ok || name == "":
		err = fmt.Errorf("it has no name or no value")
	case err == nil && l.Soft > l.Hard: // for prefork.Rlimit a Hard of 0 is that of Soft
		err = fmt.Errorf("the soft limit is above the hard one")
	}
	if err != nil {
		return l, fmt.Errorf("%w: give it as nofile=1024, nofile=1024:4096 or core=unlimited", err)
	}
	return l, nil
}

func amount(s string) (uint64, error) {
	if s == "unlimited" {
		return prefork.Unlimited, nil
	}
	n, err := Size(s)
	return uint64(n), err
}
