package preforktest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A program may stay unused if a test in its file was skipped. A program of
// Main's map may stay unused if any test was skipped.
func TestUnusedPrograms(t *testing.T) {
	fill := func() *registry {
		r := newRegistry()
		run := func() {}
		r.register("a", &entry{run: run, files: []string{"a_test.go"}})
		r.register("b", &entry{run: run, files: []string{"b_test.go", "helper_test.go"}})
		r.register("mapped", &entry{run: run})
		r.register("optional", &entry{run: run, optional: true})
		r.startTests()
		return r
	}
	for name, c := range map[string]struct {
		test func(r *registry)
		want []string
	}{
		"nothing":          {func(*registry) {}, []string{"a", "b", "mapped"}},
		"use":              {func(r *registry) { r.use("a"); r.use("mapped") }, []string{"b"}},
		"skip in a's file": {func(r *registry) { r.skip([]string{"a_test.go"}) }, []string{"b"}},
		"skip in a shared file": {
			func(r *registry) { r.skip([]string{"other_test.go", "helper_test.go"}) }, []string{"a"}},
		"skip elsewhere": {func(r *registry) { r.skip([]string{"c_test.go"}) }, []string{"a", "b"}},
	} {
		r := fill()
		c.test(r)
		var got []string
		for _, fault := range r.unused() {
			got = append(got, strings.Split(fault, `"`)[1])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: unused %q, want %q", name, got, c.want)
		}
	}
}

// callerFiles returns this file alone, whatever runs below and above it.
func TestCallerFiles(t *testing.T) {
	check := func(where string, files []string) {
		t.Helper()
		if len(files) == 0 {
			t.Errorf("%s: no file", where)
		}
		for _, file := range files {
			if filepath.Base(file) != "registry_test.go" {
				t.Errorf("%s: %q", where, files)
			}
		}
	}
	check("init", filesInInit)
	check("test", callerFiles())
	t.Run("subtest", func(t *testing.T) { check("subtest", callerFiles()) })
}

var filesInInit = callerFiles()

func TestRegisterPanics(t *testing.T) {
	for want, register := range map[string]func(r *registry){
		`two programs are named "x"`:    func(r *registry) { r.register("x", &entry{run: func() {}}) },
		`program "y" is a nil function`: func(r *registry) { r.register("y", &entry{}) },
		`registered too late`: func(r *registry) {
			r.startTests()
			r.register("z", &entry{run: func() {}})
		},
	} {
		r := newRegistry()
		r.register("x", &entry{run: func() {}})
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("panic %q, want %q", got, want)
				}
			}()
			register(r)
		}()
	}
	err := newRegistry().use("x")
	if err == nil || !strings.Contains(err.Error(), "TestMain must call Main") {
		t.Errorf("use before Main: %v", err)
	}
}

// In continuous integration a missing command fails the test.
func TestNeedCommand(t *testing.T) {
	saved := registered
	defer func() { registered = saved }()
	for ci, skipped := range map[string]bool{"": true, "false": true, "true": false} {
		t.Setenv("CI", ci)
		registered = newRegistry()
		ft := &fakeT{}
		ft.run(func() { NeedCommand(ft, "no-such-command", "there is none") })
		messages := append(ft.logs, ft.errors...)
		want := "preforktest: no-such-command is not installed: there is none"
		if len(messages) != 1 || messages[0] != want {
			t.Errorf("CI=%s: messages %q, want %q", ci, messages, want)
		}
		if ft.skipped != skipped || ft.fatal == skipped || registered.skips > 0 != skipped {
			t.Errorf("CI=%s: skipped %v, failed %v, recorded %v; want skipped %v",
				ci, ft.skipped, ft.fatal, registered.skips, skipped)
		}
	}
	t.Setenv("PATH", "/nonexistent")
	if commands, _ := filepath.Glob("/usr/sbin/a*"); len(commands) > 0 {
		name := filepath.Base(commands[0])
		if got := NeedCommand(t, name, "it is in /usr/sbin"); !strings.HasSuffix(got, "sbin/"+name) {
			t.Errorf("NeedCommand(%q) = %q", name, got)
		}
	}
}
