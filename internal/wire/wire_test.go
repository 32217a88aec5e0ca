package wire

import (
	"bytes"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	all := []Message{Reached{}, Stop{}, Reached{}}
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

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, in := range []string{"X\x00", "R\x01x", "\x00\x00"} {
		if msg, n, err := Decode([]byte(in)); err == nil || errors.Is(err, ErrShort) || n != 0 {
			t.Errorf("Decode(%q) = %v, %d, %v; want an error that is not ErrShort", in, msg, n, err)
		}
	}
}

// Whatever a worker writes, decoding ends, takes no more than there is, and what it accepts is encoded to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("R\x00"))
	f.Add([]byte("R\x00S\x00R"))
	f.Add([]byte("R\xff"))
	f.Fuzz(func(t *testing.T, buf []byte) {
		for {
			msg, n, err := Decode(buf)
			if err != nil {
				if n != 0 || msg != nil {
					t.Fatalf("Decode(%q) = %v, %d beside %v", buf, msg, n, err)
				}
				return
			}
			if n < 2 || n > len(buf) || n > MaxSize {
				t.Fatalf("Decode(%q) took %d bytes", buf, n)
			}
			if again := Append(nil, msg); !bytes.Equal(again, buf[:n]) {
				t.Fatalf("%q decodes to %#v, which encodes to %q", buf[:n], msg, again)
			}
			buf = buf[n:]
		}
	})
}
