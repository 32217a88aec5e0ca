package supervise_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/supervise"
)

// from is the status of a file that runsv wrote, in hexadecimal digits.
func from(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Files of runsv 2.1.2-54, with what its file stat had at the same time.
func TestStatus(t *testing.T) {
	at := func(sec, nsec int64) time.Time { return time.Unix(sec-10, nsec) }
	for _, row := range []struct {
		status, stat string
		want         supervise.Status
	}{
		{"40000000 6b0a585a 2060e314 5c6f0000 00 75 00 01", "run",
			supervise.Status{Since: at(0x6b0a585a, 0x2060e314), PID: 0x6f5c, State: supervise.Run, Up: true}},
		{"40000000 6b0b653c 2171e5b4 28280000 01 75 00 01", "run, paused",
			supervise.Status{Since: at(0x6b0b653c, 0x2171e5b4), PID: 10280, State: supervise.Run, Up: true, Paused: true}},
		{"40000000 6b0b6540 1dc9b5a4 00000000 01 64 00 00", "down, paused",
			supervise.Status{Since: at(0x6b0b6540, 0x1dc9b5a4), Paused: true}},
		{"40000000 6b0b6540 1dc9b5a4 28280000 00 64 01 01", "run, got TERM, want down",
			supervise.Status{Since: at(0x6b0b6540, 0x1dc9b5a4), PID: 10280, State: supervise.Run, Term: true}},
		{"40000000 6b0b6540 00000000 28280000 00 64 00 02", "finish, want down",
			supervise.Status{Since: at(0x6b0b6540, 0), PID: 10280, State: supervise.Finish}},
		{"40000000 6b0b6540 00000000 00000000 00 75 00 00", "down",
			supervise.Status{Since: at(0x6b0b6540, 0), Up: true}},
		{"40000000 0000000a 00000000 ffffff7f 00 75 00 01", "run",
			supervise.Status{Since: time.Unix(0, 0), PID: 1<<31 - 1, State: supervise.Run, Up: true}},
	} {
		b := from(t, row.status)
		var got supervise.Status
		if err := got.UnmarshalBinary(b); err != nil || got != row.want || !got.Since.Equal(row.want.Since) {
			t.Errorf("%s: %+v, %v, want %+v", row.status, got, err, row.want)
		}
		if again, err := row.want.AppendBinary([]byte("x")); err != nil || !bytes.Equal(again[1:], b) || again[0] != 'x' {
			t.Errorf("%+v: % x, %v, want %s", row.want, again, err, row.status)
		}
		if got := row.want.String(); got != row.stat {
			t.Errorf("%+v: %q, want %q", row.want, got, row.stat)
		}
	}
}

// Exit has no place in the 20 bytes, and its own words in stat.
func TestStatusExit(t *testing.T) {
	s := supervise.Status{Since: time.Unix(1, 0), PID: 7, State: supervise.Run, Term: true, Exit: true}
	if got := s.String(); got != "run, got TERM, want exit" {
		t.Error(got)
	}
	b, err := s.AppendBinary(nil)
	var got supervise.Status
	if err == nil {
		err = got.UnmarshalBinary(b)
	}
	s.Exit = false
	if got != s || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	s.State, s.Exit = supervise.Down, true
	if got := s.String(); got != "down, got TERM" {
		t.Error(got)
	}
}

// What has no place in the 20 bytes is an error, not another status.
func TestStatusRange(t *testing.T) {
	for _, s := range []supervise.Status{
		{PID: -1}, {PID: 1 << 32}, {State: 3}, {Up: true, Exit: true},
	} {
		if b, err := s.AppendBinary([]byte("x")); err == nil || string(b) != "x" {
			t.Errorf("%+v: % x, %v", s, b, err)
		}
	}
	const good = "40000000 6b0a585a 2060e314 5c6f0000 00 75 00 01"
	for _, digits := range []string{
		"", good + "00", good[:len(good)-3],
		"40000000 6b0a585a 3b9aca00 5c6f0000 00 75 00 01", // 1e9 nanoseconds
		"40000000 6b0a585a 2060e314 5c6f0000 02 75 00 01",
		"40000000 6b0a585a 2060e314 5c6f0000 00 00 00 01", // svc -o of daemontools
		"40000000 6b0a585a 2060e314 5c6f0000 00 75 02 01",
		"40000000 6b0a585a 2060e314 5c6f0000 00 75 00 03",
	} {
		was := supervise.Status{PID: 7}
		got := was
		if err := got.UnmarshalBinary(from(t, digits)); err == nil || got != was {
			t.Errorf("%s: %+v, %v", digits, got, err)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add(from(f, "40000000 6b0a585a 2060e314 5c6f0000 00 75 00 01"))
	f.Add(from(f, "40000000 6b0b6540 1dc9b5a4 00000000 01 64 01 02"))
	f.Add(from(f, "ffffffff ffffffff 00000000 ffffffff 00 64 00 00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s supervise.Status
		if s.UnmarshalBinary(b) != nil {
			return
		}
		again, err := s.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("% x is %+v, which is % x, %v", b, s, again, err)
		}
	})
}
