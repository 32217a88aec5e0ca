// Package inherit is the value by which a manager tells a worker or its successor, in its environment, who it is and which
// descriptors it was given. It is written by one side and read by the other in the same order, and nothing else reads it.
// Beside it stands what else the two sides of a new process must agree on: its program, its environment, its depth.
package inherit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Env is the name of the environment variable of a worker. It is removed as soon as it is read, so that no process that
// the worker starts takes itself for a worker.
const Env = "PREFORK_WORKER"

// SuccessorEnv is the name of the variable of a successor: a manager that a manager has started to take its place. Its value is a
// Marker too, in which Slot is 0, Generation and Ordinal are 1. It is removed as Env is.
const SuccessorEnv = "PREFORK_SUCCESSOR"

// version changes with every change of the format.
const version = "2"

// Marker is what a worker or a successor inherits.
type Marker struct {
	Manager    int    // the manager's pid, as the manager sees itself
	Name       string // of the pool
	Slot       int    // NoSlot: of a standby
	Generation int
	Ordinal    int
	Stop       syscall.Signal // the stop signal
	Orphan     time.Duration  // OrphanTimeout
	Control    int            // descriptor of the socket to the manager
	Passed     int            // descriptor of what Pass handed on; 0 for none
	Cell       int            // descriptor of the memory in which a worker publishes its status; 0 for none
	Requests   int            // so many requests and the worker retires; 0: never
	Pause      int            // number of the pause that is in force; 0 for none
	Exe        int            // descriptor of the file that the process was started from, see Binary; 0 for none. Take closes it
	Resources  string         // what a worker is to put into force; see package resources
	Path       string         // of a successor: where the program's file is found, as the manager before it has been told
	Sockets    []Socket
	Files      []File // of a successor: what the program passed on
}

// File is an open file, under the name by which the program asks for it.
type File struct {
	FD   int
	Name string
}

// Socket is a listening socket, under the name by which the program asks for it.
type Socket struct {
	FD               int
	Network, Address string
	Slot             int  // whose it is: Shared, FellBack, Awaited, or a slot
	Own              bool // the manager has bound it, and removes its file in the end, if it has one
}

// NoSlot is the slot of a standby.
const NoSlot = -1

// What Socket.Slot says of a socket that is not a slot's.
const (
	Shared   = -1 // all workers share it: it was asked for so
	FellBack = -2 // all workers share it: one for each was asked for, and is not to be had
	Awaited  = -3 // a standby will get its slot's in the place of this one, which is there for its address alone
)

// firstFD is the lowest descriptor that can be inherited: those below are the standard streams.
const firstFD = 3

// maxFD bounds descriptors; no system allows more.
const maxFD = 1 << 24

// String encodes a marker as key=value fields behind a version and a checksum. Text is read faster than JSON at the
// start of every worker (0.06 against 0.15 ms), and can be read in ps.
func (m Marker) String() string {
	b := make([]byte, 0, 160+64*len(m.Sockets))
	b = append(b, "pid="...)
	b = strconv.AppendInt(b, int64(m.Manager), 10)
	b = append(append(b, ";name="...), escape(m.Name)...)
	for _, f := range []struct {
		key string
		n   int64
	}{
		{"slot", int64(m.Slot)}, {"gen", int64(m.Generation)}, {"ord", int64(m.Ordinal)}, {"stop", int64(m.Stop)},
		{"orphan", int64(m.Orphan)}, {"ctl", int64(m.Control)}, {"pass", int64(m.Passed)},
		{"cell", int64(m.Cell)}, {"requests", int64(m.Requests)}, {"pause", int64(m.Pause)}, {"exe", int64(m.Exe)},
	} {
		b = append(append(append(b, ';'), f.key...), '=')
		b = strconv.AppendInt(b, f.n, 10)
	}
	b = append(append(b, ";res="...), escape(m.Resources)...)
	b = append(append(b, ";path="...), escape(m.Path)...)
	for _, s := range m.Sockets {
		b = append(b, ";sock="...)
		b = strconv.AppendInt(b, int64(s.FD), 10)
		b = append(append(b, ','), escape(s.Network)...)
		b = append(append(b, ','), escape(s.Address)...)
		b = strconv.AppendInt(append(b, ','), int64(s.Slot), 10)
		own := int64(0)
		if s.Own {
			own = 1
		}
		b = strconv.AppendInt(append(b, ','), own, 10)
	}
	for _, f := range m.Files {
		b = append(b, ";file="...)
		b = strconv.AppendInt(b, int64(f.FD), 10)
		b = append(append(b, ','), escape(f.Name)...)
	}
	return "v" + version + ";" + checksum(string(b)) + ";" + string(b)
}

// Parse decodes the marker of a worker. It accepts what String writes and nothing else: a value that was cut, altered or
// written by another version is an error that says which.
func Parse(value string) (Marker, error) { return parseVar(Env, value) }

// ParseSuccessor is Parse for a successor.
func ParseSuccessor(value string) (Marker, error) { return parseVar(SuccessorEnv, value) }

func parseVar(name, value string) (Marker, error) {
	m, err := parse(value)
	if err == nil {
		return m, nil
	}
	switch {
	case !errors.Is(err, errVersion):
	case name == SuccessorEnv:
		err = fmt.Errorf("%w: its manager cannot be upgraded; stop it and start the program anew", err)
	default:
		err = fmt.Errorf("%w: manager and worker must be the same program", err)
	}
	return Marker{}, fmt.Errorf("%s=%s: %w", name, strconv.Quote(short(value)), err)
}

var errVersion = errors.New("written by another version of the library")

func parse(value string) (m Marker, err error) {
	v, rest, ok := strings.Cut(value, ";")
	if !ok || len(v) < 2 || v[0] != 'v' {
		return m, errors.New("not the value that a manager writes")
	}
	if v[1:] != version {
		return m, fmt.Errorf("%w (%s, this one is v%s)", errVersion, short(v), version)
	}
	sum, rest, ok := strings.Cut(rest, ";")
	if !ok || sum != checksum(rest) {
		return m, errors.New("altered or cut after the manager wrote it")
	}
	// From here on the checksum says that a manager wrote it; what is wrong below is a fault of its own or of a forger.
	fields := strings.Split(rest, ";")
	var orphan, stop int64
	for _, f := range []struct {
		key      string
		dst      any
		min, max int64
	}{
		{"pid", &m.Manager, 1, 1 << 31}, {"name", &m.Name, 0, 0}, {"slot", &m.Slot, NoSlot, 1 << 31},
		{"gen", &m.Generation, 1, 1 << 62}, {"ord", &m.Ordinal, 1, 1 << 62}, {"stop", &stop, 1, 128},
		{"orphan", &orphan, 0, 1 << 62}, {"ctl", &m.Control, firstFD, maxFD}, {"pass", &m.Passed, 0, maxFD},
		{"cell", &m.Cell, 0, maxFD}, {"requests", &m.Requests, 0, 1 << 62}, {"pause", &m.Pause, 0, 1 << 31}, {"exe", &m.Exe, 0, maxFD}, {"res", &m.Resources, 0, 0}, {"path", &m.Path, 0, 0},
	} {
		if len(fields) == 0 {
			return m, fmt.Errorf("%s is missing", f.key)
		}
		text, ok := strings.CutPrefix(fields[0], f.key+"=")
		if !ok {
			return m, fmt.Errorf("%s is missing", f.key)
		}
		fields = fields[1:]
		if err := set(f.dst, text, f.min, f.max); err != nil {
			return m, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	m.Orphan, m.Stop = time.Duration(orphan), syscall.Signal(stop)
	for len(fields) > 0 && !strings.HasPrefix(fields[0], "file=") {
		s, err := parseSocket(fields[0])
		if err != nil {
			return m, err
		}
		m.Sockets, fields = append(m.Sockets, s), fields[1:]
	}
	for _, field := range fields {
		f, err := parseFile(field)
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, f)
	}
	return m, m.checkFDs()
}

func parseSocket(field string) (s Socket, err error) {
	text, ok := strings.CutPrefix(field, "sock=")
	parts := strings.Split(text, ",")
	if !ok || len(parts) != 5 {
		return s, fmt.Errorf("field %q is not a socket", short(field))
	}
	if err := set(&s.FD, parts[0], firstFD, maxFD); err != nil {
		return s, fmt.Errorf("sock: %w", err)
	}
	if err := set(&s.Network, parts[1], 0, 0); err != nil {
		return s, fmt.Errorf("sock: %w", err)
	}
	if err := set(&s.Address, parts[2], 0, 0); err != nil {
		return s, fmt.Errorf("sock: %w", err)
	}
	if err := set(&s.Slot, parts[3], Awaited, 1<<31); err != nil {
		return s, fmt.Errorf("sock: slot: %w", err)
	}
	var own int
	if err := set(&own, parts[4], 0, 1); err != nil {
		return s, fmt.Errorf("sock: own: %w", err)
	}
	s.Own = own == 1
	return s, nil
}

func parseFile(field string) (f File, err error) {
	text, ok := strings.CutPrefix(field, "file=")
	fd, name, comma := strings.Cut(text, ",")
	if !ok || !comma {
		return f, fmt.Errorf("field %q is not a file", short(field))
	}
	if err := set(&f.FD, fd, firstFD, maxFD); err != nil {
		return f, fmt.Errorf("file: %w", err)
	}
	if err := set(&f.Name, name, 0, 0); err != nil {
		return f, fmt.Errorf("file: %w", err)
	}
	return f, nil
}

// checkFDs refuses a descriptor that two things claim.
func (m Marker) checkFDs() error {
	fds := m.FDs()
	slices.Sort(fds)
	for i, fd := range fds {
		if fd < firstFD {
			return fmt.Errorf("descriptor %d is a standard stream", fd)
		}
		if i > 0 && fds[i-1] == fd {
			return fmt.Errorf("descriptor %d is named twice", fd)
		}
	}
	return nil
}

// FDs are all the descriptors that a marker names.
func (m Marker) FDs() []int {
	fds := []int{m.Control}
	for _, fd := range []int{m.Passed, m.Cell, m.Exe} {
		if fd != 0 {
			fds = append(fds, fd)
		}
	}
	for _, s := range m.Sockets {
		fds = append(fds, s.FD)
	}
	for _, f := range m.Files {
		fds = append(fds, f.FD)
	}
	return fds
}

func set(dst any, text string, lo, hi int64) error {
	if s, ok := dst.(*string); ok {
		return unescape(s, text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return fmt.Errorf("%q is not a number", short(text))
	}
	if n < lo || n > hi {
		return fmt.Errorf("%d is out of range", n)
	}
	switch d := dst.(type) {
	case *int:
		*d = int(n)
	case *int64:
		*d = n
	}
	return nil
}

const hex = "0123456789abcdef"

func plain(c byte) bool {
	return c > ' ' && c < 0x7f && c != ';' && c != ',' && c != '=' && c != '%'
}

func escape(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func unescape(dst *string, s string) error {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			hi, lo := strings.IndexByte(hex, s[i+1]), strings.IndexByte(hex, s[i+2])
			if hi >= 0 && lo >= 0 && !plain(byte(hi<<4|lo)) {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		if !plain(c) {
			return fmt.Errorf("%q is not as a manager writes it", short(s))
		}
		b = append(b, c)
	}
	*dst = string(b)
	return nil
}

// checksum is FNV-1a, in eight digits: against accidents, not against malice. Who can write our environment can run us anyway.
// Every worker's start passes here, and package fmt would be the first that it needs.
func checksum(s string) string {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	var b [8]byte
	for i := range b {
		b[i] = hex[h>>(28-4*i)&15]
	}
	return string(b[:])
}

func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
