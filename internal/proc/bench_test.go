//go:build unix

package proc

import (
	"os"
	"os/exec"
	"testing"
)

// BenchmarkStartReap measures a process from its start to its reaping. The case
// "by hand" uses no table and is the lower limit.
func BenchmarkStartReap(b *testing.B) {
	path, err := exec.LookPath("true")
	if err != nil {
		b.Skip(err)
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := os.StartProcess(path, []string{"true"}, &os.ProcAttr{Files: files})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Wait(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, test := range []struct {
		name string
		spec Spec
	}{
		{"plain", Spec{Files: []uintptr{0, 1, 2}}},
		{"control", Spec{Files: []uintptr{0, 1, 2, 0}, Control: 3}},
		{"die with parent", Spec{Files: []uintptr{0, 1, 2}, DieWithParent: true}},
	} {
		test.spec.Path, test.spec.Args, test.spec.Env = path, []string{"true"}, os.Environ()
		for _, name := range tableNames {
			b.Run(name+"/"+test.name, func(b *testing.B) { benchmarkStartReap(b, name, test.spec) })
		}
	}
}

func benchmarkStartReap(b *testing.B, name string, spec Spec) {
	exited := make(chan Note, 1)
	table := newTable(name, func(n Note) {
		if n.Kind == Exited {
			exited <- n
		}
	})
	defer table.Close()
	b.ReportAllocs()
	for id := uint64(0); b.Loop(); id++ {
		p, err := table.Start(id, spec)
		if err != nil {
			b.Fatal(err)
		}
		<-exited
		if status, _, ok := p.Reap(); !ok || !status.Clean() {
			b.Fatal(status, ok)
		}
	}
}
