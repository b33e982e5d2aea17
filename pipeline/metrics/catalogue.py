"""Every metric of the project, a line each. Nothing else lists metrics by name.

To add one: write a function that takes arrays of a source by name and gives a measure, and a line that names it. Then
it is in metrics.json, and wherever else the line says. What a line can say is in ``pipeline.metrics.metric``. The
report's columns stand in the order of the lines.
"""

from pipeline.metrics.metric import Catalogue, Metric

BOTH = "pairs pair_head"
CLASSES = "classes classes_smoothed classes_combined knn knn_smoothed"
VA = "va va_smoothed va_combined"
AUS = "aus aus_smoothed aus_combined"
MTL = "mtl mtl_smoothed mtl_combined"
CLIPS = "clips clips_knn clips_probe"

METRICS = Catalogue(
    {
        # Pairs of frames of two groups, by the cosine of their embeddings or by the logit of a head for pairs
        "auc_same_different": Metric(
            "AUC same/different", "higher", "verification.verification", BOTH, report=BOTH, claims="pairs",
            headline="pairs", terminal="pairs", board=BOTH, select=BOTH,
            says="How often two frames of the same emotion are closer than two of different emotions. 0.5 is chance, 1 "
            "is always.",
        ),
        "auc_same_opposite": Metric(
            "AUC same/opposite", "higher", "verification.verification", BOTH, report="pairs", claims="pairs",
            says="How often two frames of the same emotion are closer than two of opposite emotions. 0.5 is chance, 1 "
            "is always.",
        ),
        "eer_same_{other}": Metric("EER", "lower", "verification.verification", BOTH),
        "best_f1_same_{other}": Metric("F1 at the best threshold", "higher", "verification.verification", BOTH),
        "d_prime_same_{other}": Metric("d'", "higher", "verification.verification", BOTH),
        "tpr_at_fpr_{rate}_same_{other}": Metric("TPR at an FPR", "higher", "verification.verification", BOTH),
        "gap_same_opposite": Metric(
            "cosine same - opposite", "higher", "pair_cosines.mean_cosines", "embeddings", report="embeddings",
            says="Mean cosine of pairs of the same emotion minus that of opposite ones. The project's criterion is "
            "that it is not negative.",
        ),
        "gap_same_different": Metric("cosine same - different", "higher", "pair_cosines.mean_cosines", "embeddings"),
        "cosine_{kind}": Metric(
            "mean cosine of pairs", "neither", "pair_cosines.mean_cosines", "embeddings", board="embeddings"
        ),
        # Pairs of pictures of people that nobody was trained on
        "identification_at_1e-1": Metric(
            "TPR at FPR 1e-1", "higher", "identification.identification", "identification", report="identification",
            terminal="identification", board="identification", select="identification",
            says="Share of the pairs of one person above the threshold that 1 of 10 pairs of strangers is above.",
        ),
        "identification_at_1e-2": Metric(
            "TPR at FPR 1e-2", "higher", "identification.identification", "identification", report="identification",
            claims="identification", headline="identification", terminal="identification", board="identification",
            select="identification",
            says="Share of the pairs of one person above the threshold that 1 of 100 pairs of strangers is above.",
        ),
        "identification_at_1e-3": Metric(
            "TPR at FPR 1e-3", "higher", "identification.identification", "identification", report="identification",
            terminal="identification", board="identification", select="identification",
            says="Share of the pairs of one person above the threshold that 1 of 1,000 pairs of strangers is above.",
        ),
        "identification_at_1e-4": Metric(
            "TPR at FPR 1e-4", "higher", "identification.identification", "identification", report="identification",
            terminal="identification", board="identification", select="identification",
            says="Share of the pairs of one person above the threshold that 1 of 10,000 pairs of strangers is above.",
        ),
        # The pairs that a label table names
        "paired_auc": Metric(
            "AUC same/different, with named pairs", "higher", "verification.auc_with_named_pairs",
            "pairs_with_named pair_head_with_named", board="pairs_with_named pair_head_with_named",
            select="pairs_with_named pair_head_with_named",
        ),
        "paired_best_f1": Metric(
            "F1 of named pairs at the best threshold", "higher", "verification.best_f1_of_named_pairs", "named_pairs",
            board="named_pairs", select="named_pairs",
        ),
        # Neighbours
        "recall_at_1": Metric(
            "recall@1", "higher", "retrieval.recall", "gallery", report="gallery", terminal="gallery",
            says="Share of frames whose nearest frame of another person or video has the same emotion.",
        ),
        "recall_at_{k}": Metric("recall@k", "higher", "retrieval.recall", "gallery"),
        "map_at_r": Metric(
            "mAP@R", "higher", "retrieval.mean_average_precision", "gallery", report="gallery",
            says="Mean average precision among the R nearest frames of others, where R is the number of frames with "
            "that emotion.",
        ),
        # Predictions
        "macro_f1": Metric(
            "macro-F1", "higher", "protocol.expression", f"probe {CLASSES}",
            report="knn probe classes classes_smoothed classes_combined", headline="knn",
            terminal="knn classes classes_smoothed classes_combined",
            board="probe classes knn", select="classes",
            says="Mean over the classes of the harmonic mean of precision and recall. A rare class counts as much as a "
            "common one.",
        ),
        "accuracy": Metric("accuracy", "higher", "protocol.expression", CLASSES, board="knn"),
        "f1_{class}": Metric("F1 of a class", "higher", "protocol.expression", CLASSES, detail=True),
        "ccc": Metric(
            "CCC", "higher", "protocol.valence_arousal", VA, report=VA, headline="va",
            terminal="va va_combined", board="va", select="va",
            says="Concordance of predicted and true values, mean of valence and arousal. 0 is none, 1 is equal.",
        ),
        "ccc_valence": Metric("CCC of valence", "higher", "protocol.valence_arousal", VA),
        "ccc_arousal": Metric("CCC of arousal", "higher", "protocol.valence_arousal", VA),
        "rank_correlation_va": Metric(
            "rank correlation of cosine and nearness in valence and arousal", "higher",
            "rank_correlation.rank_correlation", "va_embeddings", board="va_embeddings", select="va_embeddings",
        ),
        "au_f1": Metric(
            "AU F1", "higher", "protocol.action_units", AUS, report=AUS, headline="aus",
            terminal="aus aus_combined", board="aus", select="aus",
            says="Mean F1 over the action units.",
        ),
        "p_mtl": Metric(
            "P_MTL", "higher", "protocol.multi_task", MTL, report=MTL, headline="mtl", terminal=MTL, board="mtl",
            select="mtl",
            says="ABAW's score of the multi-task challenge: the sum of mean CCC, macro-F1 and AU F1. 3 is perfect.",
        ),
        "f1_{unit}": Metric("F1 of an action unit", "higher", "protocol.action_units", AUS, detail=True),
        # Predictions of clips, as the papers of clip data sets call them
        "war": Metric(
            "WAR", "higher", "clips.recalls", CLIPS, report=CLIPS, claims=CLIPS, headline="clips clips_knn",
            terminal=CLIPS, board="clips", select="clips",
            says="Weighted average recall: the share of all clips whose class is right.",
        ),
        "uar": Metric(
            "UAR", "higher", "clips.recalls", CLIPS, report=CLIPS, claims=CLIPS, headline="clips clips_knn",
            terminal=CLIPS, board="clips", select="clips",
            says="Unweighted average recall: the mean over the classes of the share of their clips that is right.",
        ),
        "recall_of_{class}": Metric("recall of a class", "higher", "clips.recalls", CLIPS, detail=True),
        "pearson": Metric(
            "Pearson", "higher", "clips.pearson", "outputs", report="outputs", headline="outputs", terminal="outputs",
            board="outputs", select="outputs",
            says="Pearson's correlation of predicted and true values, mean of the outputs. 1 is a straight line.",
        ),
        "pearson_{output}": Metric("Pearson of an output", "higher", "clips.pearson", "outputs", detail=True),
        # Partners of named pairs
        "paired_recall_at_1": Metric(
            "paired recall@1", "higher", "retrieval.paired_recall", "partners pair_head_partners",
            report="partners pair_head_partners",
            says="Share of pairs in which the nearest of all frames is the partner.",
        ),
        "paired_recall_at_{k}": Metric(
            "paired recall@k", "higher", "retrieval.paired_recall", "partners pair_head_partners"
        ),
        "f1": Metric(
            "F1", "higher", "verification.f1_of_named_pairs", "pair_head_named", report="pair_head_named",
            headline="pair_head_named", terminal="pair_head_named", board="pair_head_named", select="pair_head_named",
            says="F1 of telling the pairs that are the same from those that are different.",
        ),
        # From one frame to the next
        "cosine_neighbours": Metric("cosine of neighbours", "neither", "steadiness.steadiness", "sequences"),
        "cosine_strangers": Metric("cosine of strangers", "neither", "steadiness.steadiness", "sequences"),
        "cosine_same_video": Metric("cosine inside a video", "neither", "steadiness.steadiness", "sequences"),
        "steadiness": Metric(
            "steadiness", "higher", "steadiness.steadiness", "sequences", report="sequences", claims="sequences",
            headline="sequences",
            says="How much closer neighbouring frames of one emotion are than frames of different videos. 1 means that "
            "neighbours are equal.",
        ),
        "steadiness_in_video": Metric(
            "steadiness in video", "higher", "steadiness.steadiness", "sequences", report="sequences",
            claims="sequences",
            says="The same against other frames of the same video. An embedding that hardly moves at all gets no "
            "credit here.",
        ),
        "flips_per_100": Metric(
            "flips/100", "lower", "steadiness.flips", CLASSES, report="knn", claims="knn",
            says="Changes of the predicted class per 100 pairs of neighbouring frames whose true class stays.",
        ),
        "switches_missed": Metric(
            "switches missed", "lower", "steadiness.lateness", CLASSES, report="knn", claims="knn",
            says="Share of true changes of emotion that the prediction never follows. Wide smoothing is steady and "
            "misses many.",
        ),
        "frames_late": Metric("frames late", "lower", "steadiness.lateness", CLASSES),
    }
)  # fmt: skip
