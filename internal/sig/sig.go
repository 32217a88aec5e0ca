// Package sig names signals and reports which of them a Go program can receive.
package sig

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// unnamed precedes the number of a signal that has no name.
const unnamed = "signal "

// maxSignal bounds the numbers that Parse accepts.
const maxSignal = 128

// Name returns the name of a signal, such as "SIGHUP", or "signal 35" if the
// system has no name for it. It returns "nothing" for nil. For a signal that is
// not a syscall.Signal it returns the result of its String method.
func Name(sig os.Signal) string {
	if sig == nil {
		return "nothing"
	}
	n, ok := sig.(syscall.Signal)
	if !ok {
		return sig.String()
	}
	if name := systemName(n); name != "" {
		return name
	}
	return unnamed + strconv.Itoa(int(n))
}

// Parse returns the signal of a name that Name returned. It also accepts the
// form "signal 1" for a signal that has a name, so that it reads the names of
// other systems if those have none for the signal.
func Parse(name string) (syscall.Signal, error) {
	if sig := systemNumber(name); sig != 0 {
		return sig, nil
	}
	number, ok := strings.CutPrefix(name, unnamed)
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n <= 0 || n > maxSignal {
		return 0, fmt.Errorf("unknown signal %q", name)
	}
	return syscall.Signal(n), nil
}

// Check returns an error unless s is a signal of the system.
func Check(s os.Signal) error {
	n, ok := s.(syscall.Signal)
	if !ok {
		return fmt.Errorf("%v (%T) is not a signal of the system; use those of package syscall", s, s)
	}
	if n < 1 || n > 64 {
		return fmt.Errorf("there is no signal %d", int(n))
	}
	return nil
}

// CheckTrap returns an error for a signal that a program cannot receive.
func CheckTrap(s os.Signal) error {
	if err := Check(s); err != nil {
		return err
	}
	if why := Untrappable(s.(syscall.Signal)); why != "" {
		return fmt.Errorf("%s cannot be trapped: %s", Name(s), why)
	}
	return nil
}

// Compare orders signals by their numbers. Others than those of the system come
// first.
func Compare(a, b os.Signal) int {
	n, _ := a.(syscall.Signal)
	m, _ := b.(syscall.Signal)
	return int(n) - int(m)
}
