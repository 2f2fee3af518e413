//! Circles among threads that wait for each other for ever: each can go on only after others have gone on.
//!
//! This file knows only numbers. The caller knows what they stand for, and how certain an edge is.

/// The circles of a graph in which each node has at most one edge, to the node that it waits for. Each circle is
/// returned once, in the order of its edges.
pub(super) fn of_one_each(waits_for: &[Option<usize>]) -> Vec<Vec<usize>> {
    // In which walk a node was first met; zero: in none yet.
    let mut walk_of = vec![0_usize; waits_for.len()];
    let mut circles = Vec::new();
    for (start, number) in (0..waits_for.len()).zip(1..) {
        let mut next = Some(start);
        while let Some(node) = next {
            if walk_of[node] != 0 {
                break;
            }
            walk_of[node] = number;
            next = waits_for[node];
        }
        if let Some(first) = next
            && walk_of[first] == number
        {
            circles.push(circle_from(first, |node| waits_for[node]));
        }
    }
    circles
}

fn circle_from(first: usize, next: impl Fn(usize) -> Option<usize>) -> Vec<usize> {
    let mut circle = vec![first];
    let mut node = next(first);
    while let Some(other) = node
        && other != first
    {
        circle.push(other);
        node = next(other);
    }
    circle
}

/// Sets of nodes that wait for each other: a node goes on only if one of its `enders` does, and a node with none goes on by
/// something else. Each set is a circle and all nodes that lead to it and that it leads to.
pub(super) fn of_all_stuck(enders: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut stuck: Vec<bool> = enders.iter().map(|enders| !enders.is_empty()).collect();
    let mut waiters: Vec<Vec<usize>> = vec![Vec::new(); enders.len()];
    for (node, enders) in enders.iter().enumerate() {
        for &ender in enders {
            waiters[ender].push(node);
        }
    }
    let mut go_on: Vec<usize> = (0..enders.len()).filter(|&node| !stuck[node]).collect();
    while let Some(node) = go_on.pop() {
        for &waiter in &waiters[node] {
            if std::mem::replace(&mut stuck[waiter], false) {
                go_on.push(waiter);
            }
        }
    }
    let firsts: Vec<Option<usize>> = (0..enders.len())
        .map(|node| stuck[node].then(|| enders[node][0]))
        .collect();
    let mut sets: Vec<Vec<usize>> = Vec::new();
    let mut is_in_a_set = vec![false; enders.len()];
    // The walk that met a node last; each walk has a number of its own.
    let (mut leads_to, mut comes_from) = (vec![0; enders.len()], vec![0; enders.len()]);
    for (mut circle, walk) in of_one_each(&firsts).into_iter().zip(1..) {
        let first = circle[0];
        if is_in_a_set[first] {
            continue;
        }
        for &node in &circle {
            is_in_a_set[node] = true;
        }
        reach(first, &waiters, &mut comes_from, walk);
        let mut others = reach(first, enders, &mut leads_to, walk);
        others.retain(|&node| stuck[node] && comes_from[node] == walk && !is_in_a_set[node]);
        others.sort_unstable();
        for &node in &others {
            is_in_a_set[node] = true;
        }
        circle.extend(others);
        sets.push(circle);
    }
    sets
}

/// The nodes that can be reached from one. Each is marked with the number of this walk.
fn reach(first: usize, next: &[Vec<usize>], met: &mut [usize], walk: usize) -> Vec<usize> {
    let (mut reached, mut open) = (Vec::new(), vec![first]);
    while let Some(node) = open.pop() {
        if std::mem::replace(&mut met[node], walk) != walk {
            reached.push(node);
            open.extend(&next[node]);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::{of_all_stuck, of_one_each};

    #[test]
    fn each_circle_is_told_once_and_what_leads_to_it_is_not() {
        // 0 -> 1 -> 2 -> 1; 3 -> 3; 4 -> 0; 5 waits for nobody.
        let waits_for = [Some(1), Some(2), Some(1), Some(3), Some(0), None];
        assert_eq!(of_one_each(&waits_for), [vec![1, 2], vec![3]]);
        assert!(of_one_each(&[Some(1), None]).is_empty());
        assert!(of_one_each(&[]).is_empty());
    }

    #[test]
    fn many_circles_take_time_in_proportion() {
        // Under Miri each step takes a microsecond.
        let many = if cfg!(miri) { 2_000 } else { 200_000 };
        let pairs: Vec<Vec<usize>> = (0..many).map(|node| vec![node ^ 1]).collect();
        assert_eq!(of_all_stuck(&pairs).len(), many / 2);
        let circle: Vec<Vec<usize>> = (0..many).map(|node| vec![(node + 1) % many]).collect();
        assert_eq!(of_all_stuck(&circle)[0].len(), many);
    }

    #[test]
    fn who_has_one_that_goes_on_is_not_stuck() {
        // 0 and 1 wait for each other; 2 and 3 too, but 3 can also be ended by 4, who goes on.
        let enders = [vec![1], vec![0], vec![3], vec![2, 4], vec![]];
        assert_eq!(of_all_stuck(&enders), [vec![0, 1]]);
        // With 4 in the circle all are stuck, and it is one set.
        let enders = [vec![1], vec![0], vec![3], vec![2, 4], vec![2]];
        assert_eq!(of_all_stuck(&enders), [vec![0, 1], vec![2, 3, 4]]);
        // Who waits behind a set is not in it.
        let enders = [vec![1], vec![0], vec![0]];
        assert_eq!(of_all_stuck(&enders), [vec![0, 1]]);
    }
}
