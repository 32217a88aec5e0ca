package marker

import "testing"

func TestCommandVariable(t *testing.T) {
	for _, c := range []Command{
		{Manager: 7, Path: "/bin/x"}, {7, 3, true, 4, false, "/srv:a", "/bin/x:y"}, {1, 0, false, 3, true, "/", ""}, {7, 9, true, 0, false, "", "a:b"},
	} {
		if got, ok := parseCommand(c.String()); !ok || got != c {
			t.Errorf("%q: %+v, %t", c, got, ok)
		}
	}
	for _, value := range []string{"", ":", "7", "7:0:/bin/x", "7:0:0:0:0:/bin/x", "0:0:0:0:0:0:/bin/x", "7:-1:0:0:0:0:/x", "7:0:2:0:0:0:/x", "7:0:0:-1:0:0:/x", "7:0:0:0:2:0:/x", "7:0:0:0:0:3:/x", "7:0:0:0:0:-1:/x", "7:0:0:0:0::/x", "x:0:0:0:0:0:/x"} {
		if c, ok := parseCommand(value); ok {
			t.Errorf("%q: %+v", value, c)
		}
	}
}
