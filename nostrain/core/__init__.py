"""Pure state machines: `step(state, input, now) -> (state, effects)`. No I/O, clock, randomness or logging (design section 4).

=================  ==========================================================================================
file               what it holds
=================  ==========================================================================================
inputs, effects    everything that goes in and comes out
rows, transaction  the state: machine rows under text keys, and the overlay that one step writes
tables             the machines' states and legal transitions (docs/states.md is generated from them)
node               the only router: one input steps every machine that it touches
run, round         folds of public events, the same for everyone
replica            our own copy of the model's state, advanced result by result
outbox             what we say: drafted, signed, sent, each step durable
coordinator, worker, validator, payer, payee   what each role decides from the views
scoring            verdicts → levels
=================  ==========================================================================================
"""
