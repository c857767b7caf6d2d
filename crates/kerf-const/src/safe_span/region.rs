//! From what a slice covers to a part of a function with a single entry: dominators, what lies between, and where it is left.

use std::collections::{BTreeMap, BTreeSet};

use kerf_semantics::slice::Role;

use super::program::{Function, joined};

/// A part of a function in which something carries the value.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// Where it begins: windows of critical spans, and calls whose result carries the value.
    pub begins: BTreeSet<u64>,
    /// Instructions at which a thread is inside.
    pub inside: BTreeSet<u64>,
}

impl Piece {
    /// Takes another piece in.
    pub fn join(&mut self, other: &Piece) {
        self.begins.extend(&other.begins);
        self.inside.extend(&other.inside);
    }

    /// Whether the two share an instruction.
    pub fn meets(&self, other: &Piece) -> bool {
        let touches = |a: &Piece, b: &Piece| b.begins.iter().chain(&b.inside).any(|ip| a.inside.contains(ip));
        touches(self, other) || touches(other, self) || self.begins.intersection(&other.begins).next().is_some()
    }
}

/// The control flow of a function, both ways, with dominators.
pub struct Graph<'a> {
    function: &'a Function,
    predecessors: BTreeMap<u64, Vec<u64>>,
    /// Position of each reachable instruction in reverse post-order.
    order: BTreeMap<u64, usize>,
    by_order: Vec<u64>,
    dominators: Vec<usize>,
}

impl<'a> Graph<'a> {
    /// Of a function.
    pub fn of(function: &'a Function) -> Graph<'a> {
        let mut predecessors: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (ip, next) in &function.body.successors {
            next.iter().for_each(|to| predecessors.entry(*to).or_default().push(*ip));
        }
        let by_order = reverse_post_order(function);
        let order: BTreeMap<u64, usize> = by_order.iter().enumerate().map(|(n, ip)| (*ip, n)).collect();
        let mut graph = Graph { function, predecessors, order, by_order, dominators: Vec::new() };
        graph.dominators = graph.solve();
        graph
    }

    fn successors(&self, ip: u64) -> &[u64] {
        self.function.body.successors.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// Cooper, Harvey, Kennedy: *A Simple, Fast Dominance Algorithm*.
    fn solve(&self) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let mut immediate = vec![NONE; self.by_order.len()];
        if let Some(first) = immediate.first_mut() {
            *first = 0;
        }
        let mut changed = true;
        while changed {
            changed = false;
            for n in 1..self.by_order.len() {
                let before = self.predecessors.get(&self.by_order[n]).into_iter().flatten();
                let known = before.filter_map(|ip| self.order.get(ip).copied()).filter(|p| immediate[*p] != NONE);
                let new = known.reduce(|a, b| common(&immediate, a, b)).unwrap_or(NONE);
                changed |= immediate[n] != new;
                immediate[n] = new;
            }
        }
        immediate
    }

    /// The last instruction that every way to all of these passes.
    fn dominator(&self, of: &BTreeSet<u64>) -> Option<u64> {
        let positions = of.iter().filter_map(|ip| self.order.get(ip).copied());
        positions.reduce(|a, b| common(&self.dominators, a, b)).and_then(|n| self.by_order.get(n).copied())
    }

    fn above(&self, ip: u64) -> Option<u64> {
        let n = *self.order.get(&ip)?;
        let above = *self.dominators.get(n)?;
        (above != n).then(|| self.by_order.get(above).copied()).flatten()
    }

    fn reach(&self, from: impl IntoIterator<Item = u64>, step: impl Fn(u64) -> Vec<u64>) -> BTreeSet<u64> {
        let (mut seen, mut open) = (BTreeSet::new(), from.into_iter().collect::<Vec<_>>());
        while let Some(ip) = open.pop() {
            if seen.insert(ip) {
                open.extend(step(ip));
            }
        }
        seen
    }

    /// The single entry of a piece, and all that lies between it and the piece.
    pub fn close(&self, piece: &Piece) -> (u64, BTreeSet<u64>) {
        let begin = self.function.begin;
        let mut entry = self.dominator(&piece.begins).unwrap_or(begin);
        loop {
            let behind = self.reach(self.successors(entry).to_vec(), |ip| {
                if ip == entry { Vec::new() } else { self.successors(ip).to_vec() }
            });
            let wanted = piece.inside.iter().chain(&piece.begins).copied().filter(|ip| *ip != entry);
            let before = self.reach(wanted, |ip| {
                if ip == entry { Vec::new() } else { self.predecessors.get(&ip).cloned().unwrap_or_default() }
            });
            let mut nodes: BTreeSet<u64> = behind.intersection(&before).copied().collect();
            let around = piece.inside.contains(&entry);
            nodes.remove(&entry);
            // A thread that comes around to the entry with the value still has it: the entry must lie further up.
            match self.above(entry).filter(|_| around && entry != begin) {
                Some(above) if self.after_begin(above) => entry = above,
                Some(_) => entry = begin,
                None => return (entry, nodes),
            }
        }
    }

    fn after_begin(&self, ip: u64) -> bool {
        self.order.get(&ip) >= self.order.get(&self.function.begin)
    }

    /// Instructions behind the last use, and those that return or leave, but for these, which leave with the value.
    pub fn exits(&self, entry: u64, nodes: &BTreeSet<u64>, with_value: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut exits = BTreeSet::new();
        for ip in nodes.iter().chain([&entry]) {
            let role = self.function.roles.get(ip);
            if matches!(role, Some(Role::Return | Role::Leave)) && !with_value.contains(ip) {
                exits.insert(*ip);
            }
            exits.extend(self.successors(*ip).iter().filter(|next| !nodes.contains(next)));
        }
        exits
    }

    /// Whether one execution can take the value more than once: at two places, or at one that it comes back to.
    pub fn uses_twice(&self, starts: &BTreeSet<u64>, nodes: &BTreeSet<u64>) -> bool {
        starts.len() > 1 || starts.iter().any(|start| self.repeats(*start, nodes))
    }

    /// Whether an instruction can be reached again from itself without leaving.
    fn repeats(&self, ip: u64, nodes: &BTreeSet<u64>) -> bool {
        let inside = |next: &u64| nodes.contains(next);
        let first: Vec<u64> = self.successors(ip).iter().copied().filter(inside).collect();
        let behind = self.reach(first, |ip| self.successors(ip).iter().copied().filter(inside).collect());
        behind.contains(&ip)
    }
}

fn common(immediate: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        if a > b {
            a = immediate[a];
        } else {
            b = immediate[b];
        }
    }
    a
}

fn reverse_post_order(function: &Function) -> Vec<u64> {
    let (mut seen, mut done) = (BTreeSet::from([function.body.entry]), Vec::new());
    let mut open = vec![(function.body.entry, 0)];
    while let Some((ip, n)) = open.pop() {
        match function.body.successors.get(&ip).and_then(|next| next.get(n)) {
            Some(next) => {
                open.push((ip, n + 1));
                if seen.insert(*next) {
                    open.push((*next, 0));
                }
            }
            None => done.push(ip),
        }
    }
    done.reverse();
    done
}

/// Ranges of addresses that some instructions take up.
pub fn ranges(function: &Function, nodes: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    joined(nodes.iter().filter_map(|ip| function.body.code.get(ip)).map(|insn| (insn.ip(), insn.next_ip())))
}

/// Pieces that share instructions become one, also through what closing takes in.
pub fn merged(
    graph: &Graph,
    pieces: Vec<(Piece, BTreeSet<usize>)>,
) -> Vec<(Piece, BTreeSet<usize>, u64, BTreeSet<u64>)> {
    let mut groups: Vec<Group> =
        pieces.into_iter().map(|(piece, critical)| Group::of(graph, piece, critical)).collect();
    let meeting = |groups: &[Group]| {
        let mut pairs = (0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b)));
        pairs.find(|(a, b)| groups[*a].whole.meets(&groups[*b].whole))
    };
    while let Some((a, b)) = meeting(&groups) {
        let (mut one, other) = (groups[a].clone(), groups.remove(b));
        one.piece.join(&other.piece);
        one.critical.extend(other.critical);
        groups[a] = Group::of(graph, one.piece, one.critical);
    }
    groups.into_iter().map(|group| (group.piece, group.critical, group.entry, group.nodes)).collect()
}

/// A piece with what closing it takes in.
#[derive(Clone)]
struct Group {
    piece: Piece,
    critical: BTreeSet<usize>,
    entry: u64,
    nodes: BTreeSet<u64>,
    /// The piece with these nodes.
    whole: Piece,
}

impl Group {
    fn of(graph: &Graph, piece: Piece, critical: BTreeSet<usize>) -> Group {
        let (entry, nodes) = graph.close(&piece);
        let mut whole = piece.clone();
        whole.inside.extend(&nodes);
        Group { piece, critical, entry, nodes, whole }
    }
}

/// All of a function behind the call of the tracer.
pub fn whole(function: &Function) -> BTreeSet<u64> {
    let behind = function.body.code.keys().copied().filter(|ip| *ip > function.begin || *ip < function.body.entry);
    behind.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::*;
    use iced_x86::{Decoder, DecoderOptions, FlowControl};
    use kerf_semantics::slice::Body;
    use std::collections::{BTreeMap, BTreeSet};

    /// A function of straight instructions, branches and returns, and the addresses of its instructions.
    fn function(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (Function, Vec<u64>) {
        let mut assembler = CodeAssembler::new(64).unwrap();
        build(&mut assembler).unwrap();
        let bytes = assembler.assemble(0x1000).unwrap();
        let decoder = Decoder::with_ip(64, &bytes, 0x1000, DecoderOptions::NONE);
        let code: BTreeMap<u64, iced_x86::Instruction> = decoder.into_iter().map(|i| (i.ip(), i)).collect();
        let (mut successors, mut roles) = (BTreeMap::new(), BTreeMap::new());
        for insn in code.values() {
            let next = match insn.flow_control() {
                FlowControl::Return => {
                    roles.insert(insn.ip(), Role::Return);
                    vec![]
                }
                FlowControl::ConditionalBranch => vec![insn.next_ip(), insn.near_branch_target()],
                _ => vec![insn.next_ip()],
            };
            successors.insert(insn.ip(), next);
        }
        let ips = code.keys().copied().collect();
        let function = Function {
            name: "f".into(),
            prototype: None,
            body: Body { entry: 0x1000, code, successors },
            roles,
            callees: BTreeMap::new(),
            alike: BTreeMap::new(),
            through: BTreeMap::new(),
            through_variable: BTreeMap::new(),
            shows: BTreeSet::new(),
            traced: true,
            begin: 0x1000,
            reads: 0,
        };
        (function, ips)
    }

    fn piece(ips: &[u64], begins: &[usize], inside: &[usize]) -> Piece {
        let of = |positions: &[usize]| positions.iter().map(|n| ips[*n]).collect();
        Piece { begins: of(begins), inside: of(inside) }
    }

    fn positions(ips: &[u64], set: &BTreeSet<u64>) -> Vec<usize> {
        set.iter().map(|ip| ips.iter().position(|known| known == ip).unwrap()).collect()
    }

    #[test]
    fn two_branches_enter_where_they_part() {
        let (function, ips) = function(|a| {
            let (mut other, mut end) = (a.create_label(), a.create_label());
            a.nop()?; // 0
            a.test(edi, edi)?; // 1
            a.je(other)?; // 2
            a.mov(eax, 1)?; // 3
            a.test(esi, esi)?; // 4
            a.je(end)?; // 5
            a.set_label(&mut other)?;
            a.mov(eax, 2)?; // 6
            a.set_label(&mut end)?;
            a.add(eax, ecx)?; // 7
            a.ret() // 8
        });
        let graph = Graph::of(&function);
        let (entry, nodes) = graph.close(&piece(&ips, &[3, 6], &[4, 5, 7]));
        assert_eq!(entry, ips[2]);
        assert_eq!(positions(&ips, &nodes), [3, 4, 5, 6, 7]);
        assert_eq!(positions(&ips, &graph.exits(entry, &nodes, &BTreeSet::new())), [8]);
        assert!(!graph.repeats(ips[3], &nodes));
        // Two calls that bring the value in, of which one way passes one: told apart by nothing.
        assert!(graph.uses_twice(&BTreeSet::from([ips[3], ips[6]]), &nodes));
        assert!(!graph.uses_twice(&BTreeSet::from([ips[3]]), &nodes));
    }

    #[test]
    fn a_value_that_comes_around_is_entered_before_the_loop() {
        let (function, ips) = function(|a| {
            let mut head = a.create_label();
            a.xor(ecx, ecx)?; // 0
            a.nop()?; // 1
            a.set_label(&mut head)?;
            a.add(ecx, 32)?; // 2
            a.dec(edi)?; // 3
            a.jne(head)?; // 4
            a.ret() // 5
        });
        let graph = Graph::of(&function);
        let (entry, nodes) = graph.close(&piece(&ips, &[2], &[2, 3, 4]));
        assert_eq!(entry, ips[1]);
        assert_eq!(positions(&ips, &nodes), [2, 3, 4]);
        assert!(graph.repeats(ips[2], &nodes));
        // Where nothing comes around, each turn is an execution of its own.
        let (entry, nodes) = graph.close(&piece(&ips, &[2], &[3]));
        assert_eq!((entry, positions(&ips, &nodes)), (ips[2], vec![3]));
        assert!(!graph.repeats(ips[2], &nodes));
    }

    #[test]
    fn pieces_that_meet_become_one() {
        let (function, ips) = function(|a| {
            for _ in 0..8 {
                a.nop()?;
            }
            a.ret()
        });
        let graph = Graph::of(&function);
        let of = |n, begins: &[usize], inside: &[usize]| (piece(&ips, begins, inside), BTreeSet::from([n]));
        let groups = merged(&graph, vec![of(0, &[0], &[1]), of(1, &[2], &[3, 4]), of(2, &[4], &[5])]);
        let critical: Vec<Vec<usize>> = groups.iter().map(|g| g.1.iter().copied().collect()).collect();
        assert_eq!(critical, [vec![0], vec![1, 2]]);
        assert_eq!((groups[1].2, positions(&ips, &groups[1].3)), (ips[2], vec![3, 4, 5]));
    }
}
