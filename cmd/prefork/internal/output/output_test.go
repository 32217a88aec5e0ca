package output

import (
	"strings"
	"testing"
)

func TestParseMax(t *testing.T) {
	if size, keep, err := parseMax("1M,3"); err != nil || size != 1<<20 || keep != 3 {
		t.Errorf("%d %d, %v", size, keep, err)
	}
	for _, in := range []string{"0", "1M,0", "1M,x", ",3"} {
		if _, _, err := parseMax(in); err == nil {
			t.Errorf("--log-max %s: no error", in)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string // "" for no error
	}{
		"stderr":               {Options{Log: "-"}, ""},
		"stderr, JSON":         {Options{Log: "-", LogJSON: true}, ""},
		"none":                 {Options{Log: "none"}, ""},
		"a file":               {Options{Log: "web.log", LogMax: "1M,2", LogPrefix: true}, ""},
		"a command":            {Options{Log: "| logger", LogPrefix: true}, ""},
		"a bad size":           {Options{Log: "web.log", LogMax: "x"}, "--log-max x: "},
		"max of stderr":        {Options{Log: "-", LogMax: "1M"}, "is a file"},
		"max of a command":     {Options{Log: "| logger", LogMax: "1M"}, "is a file"},
		"two forms":            {Options{Log: "-", LogPrefix: true, LogJSON: true}, "cannot be combined"},
		"a prefix for nothing": {Options{Log: "none", LogPrefix: true}, "--log none"},
	} {
		err := c.o.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
