//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkExecStart starts the program true: alone, by chpst of runit, and by this
// command as it is installed, which the test binary is not.
//
//	go test ./cmd/prefork -run '^$' -bench ExecStart -benchtime 200x
func BenchmarkExecStart(b *testing.B) {
	command := filepath.Join(b.TempDir(), "prefork")
	if out, err := exec.Command("go", "build", "-o", command, ".").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	for _, row := range []struct {
		name string
		args []string
	}{
		{"alone", []string{"true"}},
		{"chpst", []string{"chpst", "true"}},
		{"prefork", []string{command, "exec", "true"}},
	} {
		b.Run(row.name, func(b *testing.B) {
			if _, err := exec.LookPath(row.args[0]); err != nil {
				b.Skipf("%v: Debian: apt-get install runit", err)
			}
			for b.Loop() {
				if err := exec.Command(row.args[0], row.args[1:]...).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
