package resources

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

var unusual = names{
	passwd: []byte(`root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:
+
+nis:x:5:5::/:
-gone

web:x:1000:1000:Web,,,:/srv:/bin/sh
web:x:0:0:again:/:/bin/sh
short:x:7
few:x:8:9
 blank:x:10:10::/:
sign:x:+11:11::/:
none:x:4294967295:0::/:
huge:x:99999999999:0::/:
empty::::::
hex:x:0x0:0::/:
badgroup:x:12:x::/:
:x:13:13::/:
1234:x:14:14::/:
twin:x:1000:77::/:
last:x:15:15::/:`),
	group: []byte(`root:x:0:
web:x:1000:
adm:x:4:root,web
log:x:5: web ,other
broken:x:x:web
negative:x:-1:web
none:x:4294967295:web
# no:x:6:web
+:x:7:web
half:x:8
webmaster:x:9:webmaster
twice:x:4:web
other:x:77:twin
nobody
last:x:10:web`),
}

func TestIdentify(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
		want identity
	}{
		{"a name, with its groups", Config{User: "web"}, identity{1000, 1000, []uint32{4, 5, 10}}},
		{"the first line of a number", Config{User: "1000"}, identity{1000, 1000, []uint32{4, 5, 10}}},
		{"another line of the number", Config{User: "twin"}, identity{1000, 77, nil}},
		{"a group by name", Config{User: "web", Group: "adm"}, identity{1000, 4, []uint32{5, 10}}},
		{"a group without members", Config{User: "web", Group: "half"}, identity{1000, 8, []uint32{4, 5, 10}}},
		{"a group by number", Config{User: "web", Group: "3"}, identity{1000, 3, []uint32{4, 5, 10}}},
		{"no supplementary groups", Config{User: "web", Groups: []string{}}, identity{1000, 1000, nil}},
		{"given groups", Config{User: "web", Groups: []string{"9", "adm", "4", "web"}}, identity{1000, 1000, []uint32{4, 9}}},
		{"a number without a user", Config{User: "4000", Group: "4001"}, identity{4000, 4001, nil}},
		{"a line of four", Config{User: "few"}, identity{8, 9, nil}},
		{"the last line", Config{User: "last"}, identity{15, 15, nil}},
		{"a number that is also a name", Config{User: "1234", Group: "1"}, identity{1234, 1, nil}},
		{"leading zeros", Config{User: "0004000", Group: "1"}, identity{4000, 1, nil}},
		{"root, if asked for", Config{User: "root"}, identity{0, 0, []uint32{4}}},
	} {
		if got, err := identify(tt.c, unusual); err != nil || got.String() != tt.want.String() {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

// TestIdentifyErrors checks that a mistake never results in an identity, least
// of all root.
func TestIdentifyErrors(t *testing.T) {
	many := make([]string, maxGroups+1)
	for i := range many {
		many[i] = strconv.Itoa(2000 + i)
	}
	for _, tt := range []struct {
		c           Config
		field, want string
	}{
		{Config{User: "wbe"}, "User", `no user "wbe" in /etc/passwd`},
		{Config{User: "comment"}, "User", "no user"},
		{Config{User: "# comment"}, "User", "no user"},
		{Config{User: "+nis"}, "User", "no user"},
		{Config{User: "nis"}, "User", "no user"},
		{Config{User: "+"}, "User", "no user"},
		{Config{User: "blank"}, "User", "no user"},
		{Config{User: "web:x:0:0"}, "User", "no user"},
		{Config{User: "web\nroot"}, "User", "no user"},
		{Config{User: "-1"}, "User", "no user"},
		{Config{User: "0x0"}, "User", "no user"},
		{Config{User: " "}, "User", "no user"},
		{Config{User: "short"}, "User", "line 9 of /etc/passwd"},
		{Config{User: "sign"}, "User", "not a number"},
		{Config{User: "hex"}, "User", "not a number"},
		{Config{User: "empty"}, "User", "not a number"},
		{Config{User: "none"}, "User", "out of range"},
		{Config{User: "huge"}, "User", "out of range"},
		{Config{User: "badgroup"}, "User", "group: "},
		{Config{User: "4294967295"}, "User", "out of range"},
		{Config{User: "4294967296"}, "User", "out of range"},
		{Config{User: "4000"}, "Group", "must be given"},
		{Config{User: "web", Group: "wbe"}, "Group", "no group"},
		{Config{User: "web", Group: "broken"}, "Group", "line 5 of /etc/group"},
		{Config{User: "web", Group: "negative"}, "Group", "not a number"},
		{Config{User: "web", Group: "nobody"}, "Group", "want name, password and number"},
		{Config{User: "web", Group: "4294967295"}, "Group", "out of range"},
		{Config{User: "web", Groups: []string{"adm", "wbe"}}, "Groups", "no group"},
		{Config{User: "web", Groups: []string{""}}, "Groups", "no group"},
		{Config{User: "web", Groups: many}, "Groups", "65537 groups are more than the system allows"},
	} {
		got, err := identify(tt.c, unusual)
		var field *FieldError
		if got != nil || !errors.As(err, &field) || field.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, %v; want %s: an error with %q", tt.c, got, err, tt.field, tt.want)
		}
	}
}

// FuzzNames checks that identify finds a user only if a line of passwd begins
// with its name, whatever the files contain.
func FuzzNames(f *testing.F) {
	f.Add(unusual.passwd, unusual.group, "web", "adm")
	f.Add([]byte("a:::"), []byte("a::1:b\n"), "a", "")
	f.Fuzz(func(t *testing.T, passwd, group []byte, user, name string) {
		id, err := identify(Config{User: user, Group: name}, names{passwd, group})
		if err != nil || isNumber(user) {
			return
		}
		if !strings.Contains("\n"+string(passwd), "\n"+user+":") {
			t.Fatalf("user %q: %v, of\n%s", user, id, passwd)
		}
		if text := (plan{identity: id}).String(); id.uid > maxID || id.gid > maxID {
			t.Fatal(text)
		} else if _, err := parsePlan(text); err != nil {
			t.Fatal(err)
		}
	})
}
