package wire

import "testing"

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, MaxSize)
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], Adopt{Socket: 1, Slot: 70_000})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, msg := range map[string]Message{"Ready": Ready{}, "Adopt": Adopt{Socket: 1, Slot: 70_000}} {
		b.Run(name, func(b *testing.B) {
			buf := Append(nil, msg)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Decode(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
