// Package book owns the order file and the stock list: what a line may hold, and what
// is said of one that does not. It starts no goroutines.
package book

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Order is one line of an order file.
type Order struct {
	ID             string
	Customer       string
	SKU            string
	Quantity       int32
	UnitPriceCents int64
}

// Article is one line of a stock list.
type Article struct {
	SKU, Name string
	Pieces    int32
}

// A LineError says what is wrong with one line.
type LineError struct {
	File string
	Line int
	Err  error
}

// Error implements error.
func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// Limits of one order.
const (
	maxQuantity = 1000
	maxCents    = 100_000_000
	maxLine     = 4096
)

// ReadOrders returns the good orders of a file and what is wrong with the other lines.
// The error is that of the file itself.
func ReadOrders(path string) ([]Order, []*LineError, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return ParseOrders(f, path)
}

// ParseOrders reads orders: id, customer, sku, quantity and unit price, separated by
// commas. Empty lines and those that begin with # are left out. An id that came before
// is an error of its line.
func ParseOrders(r io.Reader, name string) ([]Order, []*LineError, error) {
	var orders []Order
	firstAt := map[string]int{}
	bad, err := lines(r, name, 5, func(line int, fields []string) error {
		o, err := parseOrder(fields)
		if err != nil {
			return err
		}
		if first, ok := firstAt[o.ID]; ok {
			return fmt.Errorf("order %s stands on line %d already", o.ID, first)
		}
		firstAt[o.ID] = line
		orders = append(orders, o)
		return nil
	})
	return orders, bad, err
}

func parseOrder(f []string) (Order, error) {
	o := Order{ID: f[0], Customer: f[1], SKU: f[2]}
	for i, name := range []string{"order id", "customer", "sku"} {
		if f[i] == "" {
			return o, fmt.Errorf("the %s is empty", name)
		}
	}
	n, err := strconv.ParseInt(f[3], 10, 32)
	if err != nil || n < 1 || n > maxQuantity {
		return o, fmt.Errorf("quantity %q is not a whole number from 1 to %d", f[3], maxQuantity)
	}
	o.Quantity = int32(n)
	o.UnitPriceCents, err = parsePrice(f[4])
	return o, err
}

// parsePrice reads "12", "12.5" or "12.50" exactly, as money must be.
func parsePrice(s string) (int64, error) {
	bad := fmt.Errorf("price %q is not an amount such as 12.50, above 0 and at most %d", s, maxCents/100)
	whole, part, _ := strings.Cut(s, ".")
	if len(part) > 2 || whole == "" || strings.HasPrefix(whole, "-") || strings.HasPrefix(whole, "+") {
		return 0, bad
	}
	for len(part) < 2 {
		part += "0"
	}
	cents, err := strconv.ParseInt(whole+part, 10, 64)
	if err != nil || cents <= 0 || cents > maxCents {
		return 0, bad
	}
	return cents, nil
}

// ReadStock returns the articles of a stock list. A list with a bad line is refused,
// naming every one: a shop must not open without part of its stock.
func ReadStock(path string) ([]Article, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseStock(f, path)
}

// ParseStock reads articles: sku, name and pieces, separated by commas.
func ParseStock(r io.Reader, name string) ([]Article, error) {
	var articles []Article
	seen := map[string]bool{}
	bad, err := lines(r, name, 3, func(_ int, f []string) error {
		pieces, err := strconv.ParseInt(f[2], 10, 32)
		switch {
		case f[0] == "":
			return errors.New("the sku is empty")
		case seen[f[0]]:
			return fmt.Errorf("sku %s stands there twice", f[0])
		case err != nil || pieces < 0:
			return fmt.Errorf("pieces %q is not a whole number from 0", f[2])
		}
		seen[f[0]] = true
		articles = append(articles, Article{f[0], f[1], int32(pieces)})
		return nil
	})
	for _, b := range bad {
		err = errors.Join(err, b)
	}
	return articles, err
}

// lines calls each with the fields of every line that has any, and collects what it
// says is wrong.
func lines(r io.Reader, name string, want int, each func(line int, fields []string) error) ([]*LineError, error) {
	var bad []*LineError
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, maxLine), maxLine)
	n := 0
	for s.Scan() {
		n++
		text := strings.TrimSpace(s.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fields, err := split(text, want)
		if err == nil {
			err = each(n, fields)
		}
		if err != nil {
			bad = append(bad, &LineError{name, n, err})
		}
	}
	if err := s.Err(); err != nil {
		return bad, &LineError{name, n + 1, err}
	}
	return bad, nil
}

func split(text string, want int) ([]string, error) {
	c := csv.NewReader(strings.NewReader(text))
	c.TrimLeadingSpace = true
	c.FieldsPerRecord = -1
	fields, err := c.Read()
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return nil, fmt.Errorf("column %d: %w", parse.Column, parse.Err)
	}
	if err != nil {
		return nil, err
	}
	if len(fields) != want {
		return nil, fmt.Errorf("%d fields, want %d, in %q", len(fields), want, text)
	}
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	return fields, nil
}

// Cents writes an amount as people do.
func Cents(n int64) string { return fmt.Sprintf("%d.%02d", n/100, n%100) }
