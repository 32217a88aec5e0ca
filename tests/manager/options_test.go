package manager_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
)

// The tables of README.md name every option.
func TestReadmeNamesEveryOption(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "\n## Options\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var check func(prefix string, fields reflect.Type)
	check = func(prefix string, fields reflect.Type) {
		for i := range fields.NumField() {
			f := fields.Field(i)
			if f.Type.Kind() == reflect.Struct {
				check(f.Name+".", f.Type)
			} else if !strings.Contains(text, "`"+prefix+f.Name+"`") && !strings.Contains(text, ", `"+f.Name+"`") {
				t.Errorf("README.md does not name %s%s", prefix, f.Name)
			}
		}
	}
	check("", reflect.TypeFor[prefork.Config]())
}
