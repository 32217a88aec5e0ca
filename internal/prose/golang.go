package prose

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxColumns is the width of a line with a comment.
const maxColumns = 100

// directive matches "//go:build", "//nolint:x", "//export f" and "// +build".
var directive = regexp.MustCompile(`^//(?:[a-z0-9]+:[a-z0-9]|export |extern |line | \+build )`)

var exampleOutput = regexp.MustCompile(`(?i)^\s*(?:unordered )?output:`)

// Go counts the comments of a Go file and checks the names that it declares.
func Go(name string, src []byte) (Count, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return Count{}, err
	}
	source := strings.Split(string(src), "\n")
	var count Count
	for _, group := range file.Comments {
		inExample := strings.HasSuffix(name, "_test.go")
		commentGroup(name, group, files, source, inExample, &count)
	}
	count.Hits = append(count.Hits, names(name, file, files)...)
	return count, nil
}

func commentGroup(name string, group *ast.CommentGroup, files *token.FileSet, source []string, test bool, count *Count) {
	var block []line
	flush := func() {
		count.Add(paragraph(name, block))
		block = nil
	}
	wide := 0 // the last line that was checked for its width
	for _, comment := range group.List {
		if directive.MatchString(comment.Text) {
			continue
		}
		first := files.Position(comment.Pos()).Line
		for i, text := range strings.Split(body(comment.Text), "\n") {
			number := first + i
			if number > wide {
				wide = number
				if full := source[number-1]; columns(full) > maxColumns && !strings.Contains(full, "://") {
					count.Hits = append(count.Hits, Hit{"long", name, number, strings.TrimSpace(full)})
				}
			}
			trimmed := strings.TrimSpace(text)
			switch {
			case test && exampleOutput.MatchString(text):
				flush()
				return
			case trimmed == "", strings.HasPrefix(text, "\t"):
				flush()
				continue
			case item.MatchString(text), strings.HasPrefix(trimmed, "# "):
				flush()
			}
			block = append(block, line{number, text})
		}
	}
	flush()
}

// body returns a comment without its markers.
func body(text string) string {
	if after, ok := strings.CutPrefix(text, "//"); ok {
		return after
	}
	return strings.TrimSuffix(strings.TrimPrefix(text, "/*"), "*/")
}

func columns(text string) int {
	text = strings.TrimRight(text, " \t\r")
	return utf8.RuneCountInString(text) + 3*strings.Count(text, "\t")
}

// names returns the declared identifiers, and the file name, with a word that
// STYLE.md replaced.
func names(name string, file *ast.File, files *token.FileSet) []Hit {
	var hits []Hit
	check := func(ident *ast.Ident, local bool) {
		if ident != nil && replaced(ident.Name, local) {
			hits = append(hits, Hit{"name", name, files.Position(ident.Pos()).Line, ident.Name})
		}
	}
	if base := strings.TrimSuffix(filepath.Base(name), ".go"); replaced(base, false) {
		hits = append(hits, Hit{"name", name, 1, filepath.Base(name)})
	}
	global := map[*ast.ValueSpec]bool{}
	for _, decl := range file.Decls {
		if decl, ok := decl.(*ast.GenDecl); ok {
			for _, spec := range decl.Specs {
				if spec, ok := spec.(*ast.ValueSpec); ok {
					global[spec] = true
				}
			}
		}
	}
	fields := map[*ast.Field]bool{}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			check(node.Name, false)
		case *ast.TypeSpec:
			check(node.Name, false)
		case *ast.StructType:
			for _, field := range node.Fields.List {
				fields[field] = true
			}
		case *ast.InterfaceType:
			for _, field := range node.Methods.List {
				fields[field] = true
			}
		case *ast.Field:
			for _, ident := range node.Names {
				check(ident, !fields[node])
			}
		case *ast.ValueSpec:
			for _, ident := range node.Names {
				check(ident, !global[node])
			}
		case *ast.AssignStmt:
			if node.Tok == token.DEFINE {
				for _, expr := range node.Lhs {
					ident, _ := expr.(*ast.Ident)
					check(ident, true)
				}
			}
		case *ast.RangeStmt:
			if node.Tok == token.DEFINE {
				for _, expr := range []ast.Expr{node.Key, node.Value} {
					ident, _ := expr.(*ast.Ident)
					check(ident, true)
				}
			}
		}
		return true
	})
	return hits
}

// replaced reports whether one of the words of an identifier is out of use. A
// local variable may be named rest.
func replaced(name string, local bool) bool {
	for _, word := range split(name) {
		switch {
		case word == "heir", word == "heirs", strings.HasPrefix(word, "bequeath"):
			return true
		case word == "rest" && !(local && name == "rest"):
			return true
		}
	}
	return false
}

// split returns the words of an identifier in lower case.
func split(name string) []string {
	var words []string
	var current []rune
	flush := func() {
		if len(current) > 0 {
			words = append(words, strings.ToLower(string(current)))
		}
		current = nil
	}
	runes := []rune(name)
	for i, r := range runes {
		if r == '_' || r == '.' || unicode.IsDigit(r) {
			flush()
			continue
		}
		// A word starts at an upper-case letter beside a lower-case one: HTTPRest.
		if unicode.IsUpper(r) && i > 0 &&
			(!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			flush()
		}
		current = append(current, r)
	}
	flush()
	return words
}
