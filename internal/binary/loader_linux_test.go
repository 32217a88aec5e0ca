package binary

import "testing"

func TestFileAt(t *testing.T) {
	const maps = `00400000-004ae000 r-xp 00000000 fe:00 9984892                            /srv/my app (deleted)
004ae000-004b0000 rw-p 00000000 00:00 0 
7faff3d1d000-7faff3d1f000 r-xp 00000000 00:00 0                          [vdso]
7faff3d20000-7faff3d46000 r-xp 00001000 fe:00 325835                     /lib/ld.so
`
	for address, want := range map[uint64]string{
		0x3fffff: "", 0x400000: "/srv/my app (deleted)", 0x4adfff: "/srv/my app (deleted)", 0x4ae000: "", 0x7faff3d1d000: "",
		0x7faff3d20000: "/lib/ld.so", 0x7faff3d46000: "",
	} {
		if got := fileAt(maps, address); got != want {
			t.Errorf("at %x: %q, want %q", address, got, want)
		}
	}
}
