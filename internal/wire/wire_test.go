package wire

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	all := []Message{
		StatusChanged{}, Recycle{}, Ready{}, Stop{}, Stop{Interrupt: true}, Failed{Reason: "worker 7"}, TakeOver{}, Failed{}, Adopt{}, Adopt{1, 70_000}, Drop{2, math.MaxInt32},
		Drop{math.MaxInt32, 0}, Parked{}, Promote{}, Promote{7, "cpu:0-3"}, Promote{math.MaxInt32, strings.Repeat("x", MaxPlan)}, Ready{},
		Pause{}, Pause{math.MaxInt32}, Resume{}, LogLevel{}, LogLevel{-4}, LogLevel{math.MinInt32}, LogLevel{math.MaxInt32}, Paused{9}, ListenerClosed{}, ListenerClosed{3}, SocketUnused{}, SocketUnused{3},
		Shutdown{}, Shutdown{3, "no model"}, Shutdown{255, strings.Repeat("x", MaxMessage)},
		Executing{}, NotStarted{}, NotStarted{2, ""}, NotStarted{1, "Chroot: not permitted"},
		Accepting{}, Accepting{4}, AcceptFailed{}, AcceptFailed{5}, AdoptFailed{}, AdoptFailed{6, 70_000},
	}
	var buf []byte
	for _, msg := range all {
		buf = Append(buf, msg)
	}
	for _, want := range all {
		msg, n, err := Decode(buf)
		if err != nil || msg != want {
			t.Fatalf("Decode(%q) = %#v, %v, want %#v", buf, msg, err, want)
		}
		buf = buf[n:]
	}
	if _, n, err := Decode(buf); n != 0 || !errors.Is(err, ErrShort) {
		t.Errorf("Decode of nothing = %d, %v, want ErrShort", n, err)
	}
}

// Append truncates content that is too long for a message.
func TestTruncate(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, test := range []struct{ msg, want Message }{
		{Failed{Reason: long}, Failed{Reason: long[:maxBody]}},
		{Promote{Slot: 7, Plan: long}, Promote{Slot: 7, Plan: long[:MaxPlan]}},
		{Shutdown{Code: 3, Message: long}, Shutdown{Code: 3, Message: long[:MaxMessage]}},
		{NotStarted{Errno: 3, Reason: long}, NotStarted{Errno: 3, Reason: long[:MaxMessage]}},
	} {
		msg, n, err := Decode(Append(nil, test.msg))
		if msg != test.want || n != MaxSize || err != nil {
			t.Errorf("%.20v: %.20v of %d bytes, %v", test.msg, msg, n, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, in := range []string{
		"X\x00", "R\x01x", "\x00\x00", "A\x00", "D\x07", "A\x09", "D\xff",
		"A\x08\x80\x00\x00\x00\x00\x00\x00\x00", "D\x08\x00\x00\x00\x00\xff\xff\xff\xff",
		"K\x01x", "L\x00", "M\x05", "E\x00", "N\x04", "N\x08\x00\x00\x00\x00\x80\x00\x00\x00", "H\x00", "H\x05", "G\x01", "Z\x04\x80\x00\x00\x00", "C\x00", "P\x03\x00\x00\x00", "\x19\x01x", "P\x04\x80\x00\x00\x00",
	} {
		if msg, n, err := Decode([]byte(in)); err == nil || errors.Is(err, ErrShort) || n != 0 {
			t.Errorf("Decode(%q) = %v, %d, %v; want an error that is not ErrShort", in, msg, n, err)
		}
	}
}

// A message can arrive in pieces, split at any byte.
func TestDecodeInPieces(t *testing.T) {
	for _, want := range []Message{
		Ready{}, Stop{}, Stop{Interrupt: true}, TakeOver{}, StatusChanged{}, Recycle{}, Failed{"no room"}, Adopt{3, 4}, Drop{1 << 20, 9}, Parked{}, Promote{5, "cpu:1"}, Pause{3}, Resume{}, LogLevel{-8}, Paused{1 << 30}, ListenerClosed{1}, SocketUnused{2}, Shutdown{3, "why"}, NotStarted{8, "why"}, Executing{},
		Accepting{3}, AcceptFailed{4}, AdoptFailed{5, 6},
	} {
		whole := Append(nil, want)
		for cut := range whole {
			if msg, n, err := Decode(whole[:cut]); msg != nil || n != 0 || !errors.Is(err, ErrShort) {
				t.Errorf("%d bytes of %#v: %v, %d, %v, want ErrShort", cut, want, msg, n, err)
			}
		}
		if msg, n, err := Decode(append(whole, 'R')); msg != want || n != len(whole) || err != nil {
			t.Errorf("%#v and more: %v, %d, %v", want, msg, n, err)
		}
	}
}

// For any input, decoding ends and reads no more than the buffer. An accepted
// message encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("R\x00"))
	f.Add([]byte("R\x00S\x00R"))
	f.Add([]byte("R\xff"))
	f.Add([]byte("A\x08\x00\x00\x00\x01\x00\x01\x00\x02S\x00D\x08\x00\x00\x00\x01\x00\x01\x00\x02"))
	f.Add([]byte("D\x08\x7f\xff\xff\xff\x80\x00\x00\x00"))
	f.Add([]byte("F\x02noT\x00"))
	f.Add([]byte("E\x03\x07noE\x01\x00E\x00"))
	f.Add([]byte("C\x04\x00\x00\x00\x01"))
	f.Add([]byte("L\x04\x00\x00\x00\x01M\x04\x00\x00\x00\x01N\x08\x00\x00\x00\x01\x00\x00\x00\x02"))
	f.Add([]byte("H\x04\x00\x00\x00\x07G\x00Z\x04\x00\x00\x00\x07"))
	f.Fuzz(func(t *testing.T, buf []byte) {
		for n := -1; n != 0; buf = buf[n:] {
			n = checkDecode(t, buf)
		}
	})
}

// checkDecode decodes one message and returns its length, or 0 for an error.
func checkDecode(t *testing.T, buf []byte) int {
	t.Helper()
	msg, n, err := Decode(buf)
	if err != nil {
		if n != 0 || msg != nil {
			t.Fatalf("Decode(%q) = %v, %d, %v", buf, msg, n, err)
		}
		return 0
	}
	if n < 2 || n > len(buf) || n > MaxSize {
		t.Fatalf("Decode(%q) read %d bytes", buf, n)
	}
	if again := Append(nil, msg); !bytes.Equal(again, buf[:n]) {
		t.Fatalf("%q decodes to %#v, which encodes to %q", buf[:n], msg, again)
	}
	return n
}
