package manager_test

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/marker"
)

// docs/CONFIGURATION.md names every option and every environment variable in a
// table of its own row, and no other.
func TestConfigurationNamesEveryOption(t *testing.T) {
	page, err := os.ReadFile("../../docs/CONFIGURATION.md")
	if err != nil {
		t.Fatal(err)
	}
	options, variables, found := strings.Cut(string(page), "\n## Environment variables\n")
	if !found {
		t.Fatal("docs/CONFIGURATION.md has no section of environment variables")
	}

	want := optionNames("", reflect.TypeFor[prefork.Config]())
	want = append(want, optionNames("ListenConfig.", reflect.TypeFor[prefork.ListenConfig]())...)
	want = append(want, optionNames("Forward.", reflect.TypeFor[prefork.Forward]())...)
	want = append(want, optionNames("Rlimit.", reflect.TypeFor[prefork.Rlimit]())...)
	compareNames(t, "option", rowNames(options), want)
	compareNames(t, "variable", rowNames(variables), []string{
		marker.Env, marker.SuccessorEnv, marker.DepthEnv, marker.CommandEnv, marker.ReaperEnv, "PREFORK_IN_PROCESS",
		"GOMAXPROCS", "GOMEMLIMIT",
		activation.StarterEnv, activation.StarterGenerationEnv, activation.ListenFDsEnv, activation.ListenPIDEnv,
	})
}

// optionNames returns the names of all fields, also of those in structs.
func optionNames(prefix string, fields reflect.Type) (names []string) {
	for f := range fields.Fields() {
		if f.Type.Kind() == reflect.Struct {
			names = append(names, optionNames(f.Name+".", f.Type)...)
		} else {
			names = append(names, prefix+f.Name)
		}
	}
	return names
}

// rowNames returns the names in the first column of the tables.
func rowNames(text string) (names []string) {
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z_.]+)` \\|").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

func compareNames(t *testing.T, kind string, got, want []string) {
	t.Helper()
	rows := make(map[string]int)
	for _, name := range got {
		rows[name]++
	}
	for _, name := range want {
		if rows[name] != 1 {
			t.Errorf("%s %s has %d rows in docs/CONFIGURATION.md, want 1", kind, name, rows[name])
		}
		delete(rows, name)
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		t.Errorf("docs/CONFIGURATION.md names the %s %s, which does not exist", kind, name)
	}
}
