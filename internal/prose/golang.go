package prose

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
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
	if !strings.HasSuffix(name, "_test.go") {
		count.Hits = append(count.Hits, literals(name, file, files)...)
	}
	return count, nil
}

// literals returns the words in string literals that STYLE.md avoids: users read
// them in logs and errors. A literal without a space is a name or a format.
func literals(name string, file *ast.File, files *token.FileSet) (hits []Hit) {
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field: // its tag
			return node.Tag == nil
		case *ast.BasicLit:
			text, err := strconv.Unquote(node.Value)
			if node.Kind != token.STRING || err != nil || !strings.Contains(text, " ") {
				return false
			}
			for _, hit := range paragraph(name, []line{{files.Position(node.Pos()).Line, text}}).Hits {
				if hit.Class != "should" {
					hits = append(hits, Hit{"text", hit.File, hit.Line, hit.Class + ": " + hit.Text})
				}
			}
		}
		return true
	})
	return hits
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
			if full := source[number-1]; number > wide && isLong(full) {
				count.Hits = append(count.Hits, Hit{"long", name, number, strings.TrimSpace(full)})
			}
			wide = max(wide, number)
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

// isLong reports whether a line is too wide. A line with a link may be.
func isLong(text string) bool {
	return columns(text) > maxColumns && !strings.Contains(text, "://")
}

func columns(text string) int {
	text = strings.TrimRight(text, " \t\r")
	return utf8.RuneCountInString(text) + 3*strings.Count(text, "\t")
}

// names returns the declared identifiers, and the file name, with a word that
// STYLE.md replaced.
func names(name string, file *ast.File, files *token.FileSet) []Hit {
	n := &namer{name: name, files: files, global: globals(file), fields: map[*ast.Field]bool{}}
	if base := strings.TrimSuffix(filepath.Base(name), ".go"); replaced(base, false) {
		n.hits = append(n.hits, Hit{"name", name, 1, filepath.Base(name)})
	}
	ast.Inspect(file, n.visit)
	return n.hits
}

func globals(file *ast.File) map[*ast.ValueSpec]bool {
	global := map[*ast.ValueSpec]bool{}
	for _, decl := range file.Decls {
		decl, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range decl.Specs {
			if spec, ok := spec.(*ast.ValueSpec); ok {
				global[spec] = true
			}
		}
	}
	return global
}

// namer checks the declarations of a file.
type namer struct {
	name   string
	files  *token.FileSet
	global map[*ast.ValueSpec]bool
	fields map[*ast.Field]bool // of structs and interfaces; others are parameters
	hits   []Hit
}

func (n *namer) visit(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.FuncDecl:
		n.check(false, node.Name)
	case *ast.TypeSpec:
		n.check(false, node.Name)
	case *ast.StructType:
		n.addFields(node.Fields)
	case *ast.InterfaceType:
		n.addFields(node.Methods)
	case *ast.Field:
		n.check(!n.fields[node], node.Names...)
	case *ast.ValueSpec:
		n.check(!n.global[node], node.Names...)
	case *ast.AssignStmt:
		n.define(node.Tok, node.Lhs...)
	case *ast.RangeStmt:
		n.define(node.Tok, node.Key, node.Value)
	}
	return true
}

func (n *namer) addFields(list *ast.FieldList) {
	for _, field := range list.List {
		n.fields[field] = true
	}
}

func (n *namer) define(tok token.Token, exprs ...ast.Expr) {
	if tok != token.DEFINE {
		return
	}
	for _, expr := range exprs {
		if ident, ok := expr.(*ast.Ident); ok {
			n.check(true, ident)
		}
	}
}

func (n *namer) check(local bool, idents ...*ast.Ident) {
	for _, ident := range idents {
		if replaced(ident.Name, local) {
			n.hits = append(n.hits, Hit{"name", n.name, n.files.Position(ident.Pos()).Line, ident.Name})
		}
	}
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
