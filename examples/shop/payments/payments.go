// Package payments is the service that charges, from plain Go structs. Its instances
// share a ledger, so that it does not matter which of them a repeated charge meets. It
// starts no goroutines.
package payments

import (
	"context"
	"time"

	"telford.dev/telford"
)

// Name is the name of the service.
const Name = "payments"

// MethodCharge takes a Charge and answers with a Receipt.
const MethodCharge = "charge"

// Limit is the most that one order may cost.
const Limit = 2_000_00

// Charge asks for money for an order. Charging one order twice takes the money once.
type Charge struct {
	Order       string `json:"order"`
	Customer    string `json:"customer"`
	AmountCents int64  `json:"amount_cents"`
}

// Receipt says that an order was charged, and by which instance.
type Receipt struct {
	Order       string `json:"order"`
	Number      string `json:"number"`
	AmountCents int64  `json:"amount_cents"`
	ChargedBy   string `json:"charged_by"`
}

// Service charges.
type Service struct {
	ledger   *Ledger
	instance func() string
	// bank is how long the bank takes.
	bank time.Duration
}

// New charges into a ledger, in the name of the instance.
func New(ledger *Ledger, instance func() string, bank time.Duration) *Service {
	return &Service{ledger: ledger, instance: instance, bank: bank}
}

// Register adds the methods to a service.
func (s *Service) Register(svc *telford.Service) error {
	return telford.Handle(svc, MethodCharge, s.charge)
}

func (s *Service) charge(ctx context.Context, in *Charge) (*Receipt, error) {
	if in.AmountCents <= 0 {
		return nil, telford.Errorf(telford.CodeInvalidArgument, "amount_cents is %d and has to be positive", in.AmountCents)
	}
	if in.AmountCents > Limit {
		return nil, telford.Errorf(telford.CodeFailedPrecondition, "the bank declined %d cents: the limit is %d", in.AmountCents, int64(Limit))
	}
	answered := time.NewTimer(s.bank)
	defer answered.Stop()
	select {
	case <-answered.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := s.ledger.Book(Receipt{Order: in.Order, Number: "R-" + in.Order, AmountCents: in.AmountCents, ChargedBy: s.instance()})
	if err != nil {
		return nil, err
	}
	if r.AmountCents != in.AmountCents {
		return nil, telford.Errorf(telford.CodeConflict, "order %s was charged %d cents before, not %d", in.Order, r.AmountCents, in.AmountCents)
	}
	return &r, nil
}
